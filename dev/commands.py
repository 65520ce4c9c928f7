"""Commands that need no running Airflow: the doctor, the reports as files, the dashboard for Atlas.

They use the connections of the environment where `AIRFLOW_CONN_BI_MONGO` or `AIRFLOW_CONN_BI_REPORTS` is set, else the
embedded stack, also while `make up` runs it. Airflow reads its environment when it is first imported, so modules that
need it are imported late.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dev import demo_regions, embedded_stack
from dev.console import console
from dev.processes import StackError, StackRunningError

if TYPE_CHECKING:
    from bi_ops.settings import Settings

DIST = Path(__file__).parents[1] / "dist"


@contextmanager
def connected_settings(folder: Path) -> Iterator[Settings]:
    """The settings, with the connections in the environment; the embedded stack runs until the block ends.

    Args:
        folder: The embedded stack's folder.

    Raises:
        StackError: The embedded stack cannot be used, or a setting is invalid.
    """
    with ExitStack() as exit_stack:
        if not {"AIRFLOW_CONN_BI_MONGO", "AIRFLOW_CONN_BI_REPORTS"} & set(os.environ):
            os.environ.update(_stack_env(folder, exit_stack))
        os.environ.setdefault("AIRFLOW_HOME", str(folder / "airflow"))
        from bi_ops.errors import BiError
        from bi_ops.settings import Settings

        try:
            yield Settings.from_env()
        except BiError as error:
            raise StackError(str(error)) from None


def _stack_env(folder: Path, exit_stack: ExitStack) -> dict[str, str]:
    """The environment of the embedded stack, which is started unless `make up` runs it."""
    try:
        exit_stack.enter_context(embedded_stack.stack_lock(folder))
    except StackRunningError:
        if environment := demo_regions.running_env(folder):
            return environment
        raise
    return demo_regions.demo_env(exit_stack.enter_context(demo_regions.databases(folder)))


def doctor(folder: Path) -> int:
    """Run every check, print the report, and return the exit status: 1 where a check failed."""
    with connected_settings(folder) as settings:
        from bi_ops.airflow import connections
        from bi_ops.airflow.airflow_facts import read_airflow_facts
        from bi_ops.doctor.results import Status, format_report
        from bi_ops.doctor.runner import run_all_checks

        with console.status("Running the checks"):
            findings = list(run_all_checks(settings, settings.regions, connections, read_airflow_facts()))
        console.print(format_report(findings), markup=False, highlight=False, soft_wrap=True)
        return int(any(finding.status is Status.FAILED for finding in findings))


def report(folder: Path) -> int:
    """Write the dashboard as one HTML page and PNGs, and the digest beside it; returns the exit status."""
    with connected_settings(folder) as settings:
        from bi_ops.airflow.reports_connection import open_reports_store
        from bi_ops.errors import NoDigestError
        from bi_ops.reports.digest_rendering import export_digest
        from bi_ops.reports.export import export_dashboard

        with console.status("Drawing the reports"), open_reports_store() as store:
            page = export_dashboard(store, settings, DIST / "report")
            console.print(f"{page.relative_to(Path.cwd())}, with a PNG of each report beside it")
            try:
                page = export_digest(store, settings, DIST / "report")
                console.print(f"{page.relative_to(Path.cwd())}: what bi_digest sends, with its PNGs beside it")
            except NoDigestError as error:
                console.print(f"No preview of bi_digest: {error}", soft_wrap=True)
    return 0


def atlas(folder: Path) -> int:
    """Write the dashboard for Atlas Charts, and return the exit status."""
    os.environ.setdefault("AIRFLOW_HOME", str(folder / "airflow"))
    from airflow.providers.common.compat.sdk import BaseHook

    from bi_ops.airflow.connections import DEFAULT_DATABASE, MONGO_CONN_ID, has_connection
    from bi_ops.reports.atlas import build_dashboard

    database = BaseHook.get_connection(MONGO_CONN_ID).schema if has_connection(MONGO_CONN_ID) else None
    file = DIST / "meg-bi.charts"
    file.parent.mkdir(exist_ok=True)
    file.write_text(build_dashboard(database or DEFAULT_DATABASE))
    console.print(f"{file.relative_to(Path.cwd())}: in Atlas Charts, Add Dashboard, Import Dashboard")
    return 0
