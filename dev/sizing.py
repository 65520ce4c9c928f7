"""`make sizing REGIONS=12 FORMS=20000`: predicts what an installation needs, from measured costs.

The settings are those of the environment, such as `BI_MAX_MAPPED_TASKS=8 make sizing REGIONS=100 FORMS=1000`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from rich.table import Table

from bi_ops.catalog.periods import Cadence
from bi_ops.errors import SettingsError
from bi_ops.settings import Settings
from dev.console import console
from dev.sizing_advice import advice
from dev.sizing_costs import TASK_COSTS
from dev.sizing_model import Installation, Run, Storage, meg_connections, mongo_connections

LIMITS = {
    "regions": (1, 100),
    "forms": (1, 100_000),
    "months": (1, 120),
    "observations": (0, 1_000),
    "cores": (1, 256),
    "slots": (1, 1_024),
}
"""The smallest and the largest value of each number."""
_REQUIRED = ("regions", "forms")
_MB, _GB = 1e6, 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the prediction, and return the exit status: 2 where a number or a setting is not allowed."""
    parser = argparse.ArgumentParser(prog="python -m dev.sizing", description=__doc__)
    for name in LIMITS:
        parser.add_argument(f"--{name}", default="", help=_describe_limits(name))
    parser.add_argument("--executor", default="", help=" or ".join(TASK_COSTS))
    texts = {name: text for name, text in vars(parser.parse_args(arguments)).items() if text or name in _REQUIRED}
    try:
        here = parse_installation(texts, Settings.from_env())
    except SettingsError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    _print_prediction(here)
    return 0


def _describe_limits(name: str) -> str:
    low, high = LIMITS[name]
    return f"{low:,} to {high:,}"


def parse_installation(texts: Mapping[str, str], settings: Settings) -> Installation:
    """Validate the numbers of an installation.

    Args:
        texts: By name, as they were given; `executor` is a word.
        settings: The settings.

    Raises:
        SettingsError: One is not a whole number in its range, or the executor is unknown.
    """
    numbers = {name: _parse(name, text) for name, text in texts.items() if name != "executor"}
    return Installation(**numbers, executor=_parse_executor(texts.get("executor", "local")), settings=settings)


def _parse_executor(text: str) -> str:
    if text in TASK_COSTS:
        return text
    raise SettingsError(
        "not an executor whose tasks were measured",
        context="make sizing, EXECUTOR",
        expected=" or ".join(TASK_COSTS),
        actual=repr(text),
        hint="For Kubernetes, predict with celery, and add the start of the pods.",
    )


def _parse(name: str, text: str) -> int:
    low, high = LIMITS[name]
    digits = text.strip().replace(",", "")
    if digits.isascii() and digits.isdecimal() and low <= int(digits) <= high:
        return int(digits)
    raise SettingsError(
        "not a number that can be predicted",
        context=f"make sizing, {name.upper()}",
        expected=f"a whole number, {_describe_limits(name)}",
        actual=repr(text),
        hint="Run, for example: make sizing REGIONS=12 FORMS=20000",
    )


def _print_prediction(here: Installation) -> None:
    settings = here.settings
    console.print(
        f"{here.regions:,} regions of {here.forms:,} forms, {here.months} months, {here.observations} observations per "
        f"form and month; {here.cores} cores, {here.slots} worker slots, executor {here.executor}; "
        f"BI_FORMS_PER_CHUNK={settings.forms_per_chunk}, BI_MAX_MAPPED_TASKS={settings.max_mapped_tasks}, "
        f"BI_MAX_PARALLEL_CHUNKS={settings.max_parallel_chunks}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_runs_table(here))
    console.print(_storage_table(Storage.of(here)))
    used = min(here.slots, Run(Cadence.MONTHLY, here).useful_slots)
    console.print(
        f"At once, at most: {used:,} tasks of bi_monthly, {meg_connections(here):,} connections to each MEG, "
        f"{mongo_connections(here):,} connections to MongoDB.",
        highlight=False,
        soft_wrap=True,
    )
    for line in advice(here) or ["No setting needs to change."]:
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)


def _runs_table(here: Installation) -> Table:
    table = Table(title="Each run, the first time", title_justify="left")
    table.add_column("DAG", no_wrap=True)
    for name in ("tasks", "minutes", "documents", "MB from MEG", "MB, MongoDB"):
        table.add_column(name, justify="right")
    table.add_column("limited by")
    for cadence in Cadence:
        run = Run(cadence, here)
        table.add_row(
            cadence.dag_id,
            f"{run.tasks:,}",
            f"{run.seconds / 60:,.1f}",
            f"{run.documents:,.0f}",
            f"{run.meg_bytes / _MB:,.0f}",
            f"{run.mongo_bytes / _MB:,.0f}",
            run.limited_by,
        )
    return table


def _storage_table(storage: Storage) -> Table:
    table = Table("MongoDB's disk, on each member", title_justify="left")
    table.add_column("GB", justify="right")
    rows = {
        "live collections": storage.live,
        "their indexes of _id": storage.id_indexes,
        "the recommended indexes": storage.other_indexes,
        "staging database, 30 days": storage.staging,
        "together": storage.total,
        "staging database after all months were loaded at once": storage.staging_after_backfill,
        "live collections if names do not compress": storage.live_raw,
    }
    for name, size in rows.items():
        table.add_row(name, f"{size / _GB:,.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
