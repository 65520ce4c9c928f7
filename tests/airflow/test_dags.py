"""Tests the DAGs that Airflow builds from the dags folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models import DagBag
from airflow.providers.common.compat.sdk import ParamValidationError
from airflow.sdk import AssetAny
from airflow.timetables.interval import CronDataIntervalTimetable

from bi_ops.airflow.backfill_dag import build_backfill_dag
from bi_ops.airflow.dag_factory import build_dag
from bi_ops.airflow.lineage import extract_tables
from bi_ops.airflow.operators import StageOperator
from bi_ops.catalog.jobs import JOBS, LoadMode
from bi_ops.catalog.periods import Cadence
from bi_ops.catalog.sql_templates import include_dir, render_sql
from bi_ops.errors import SettingsError
from tests.conftest import ROOT
from tests.meg_factory import utc

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEG_REGIONS", "eu,uk")
        patch.setenv("BI_TIMEZONE", "Europe/Dublin")
        patch.setenv("BI_START_DATE", "2026-03-01")
        bag = DagBag(str(ROOT / "dags"))
    assert bag.import_errors == {}
    return bag.dags


def test_dags_match_cadences(dags: dict[str, Any]) -> None:
    """There is one DAG for each cadence, and those that look after them."""
    assert set(dags) == {job.cadence.dag_id for job in JOBS} | {"bi_backfill", "bi_digest", "bi_doctor", "bi_watch"}


def test_task_groups_match_jobs_and_regions(dags: dict[str, Any]) -> None:
    """Each job and region has plan, stage and publish."""
    assert set(dags["bi_doctor"].task_ids) == {"examine"}
    for dag_id in {job.cadence.dag_id for job in JOBS}:
        dag = dags[dag_id]
        expected = {
            f"{job.name}.{region}.{step}"
            for job in JOBS
            if job.cadence.dag_id == dag_id
            for region in ("eu", "uk")
            for step in ("plan", "stage", "publish")
        }
        assert set(dag.task_ids) - {"wait_until_01_00"} == {"gate", *expected}


def test_regions_are_independent(dags: dict[str, Any]) -> None:
    """No task of a region depends on another region's."""
    for task in (task for dag in dags.values() for task in dag.tasks if "." in task.task_id):
        for upstream in task.upstream_task_ids - {"gate", "wait_until_01_00"}:
            assert upstream.split(".")[:2] == task.task_id.split(".")[:2]


@pytest.mark.parametrize(
    ("dag_id", "cron", "catchup"),
    [("bi_monthly", "0 0 1 * *", True), ("bi_quarterly", "0 0 1 1,4,7,10 *", True), ("bi_weekly", "0 0 * * 6", False)],
)
def test_dag_schedules(dags: dict[str, Any], dag_id: str, cron: str, *, catchup: bool) -> None:
    """The schedules are the documented ones."""
    dag = dags[dag_id]
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.timetable.summary == cron
    assert dag.start_date.isoformat() == "2026-03-01T00:00:00+00:00"
    assert str(dag.timezone) == "Europe/Dublin"
    assert (dag.catchup, dag.max_active_runs) == (catchup, 1)
    assert all(task.retries > 0 and task.retry_exponential_backoff for task in dag.tasks)


@pytest.mark.parametrize(("self_heal", "schedule"), [("", None), ("0", None), ("1", "0 6 * * *")])
def test_backfill_runs_daily_if_self_heal_is_on(
    monkeypatch: pytest.MonkeyPatch, self_heal: str, schedule: str | None
) -> None:
    """bi_backfill has a schedule only where BI_SELF_HEAL is on."""
    monkeypatch.setenv("BI_SELF_HEAL", self_heal)
    monkeypatch.setenv("BI_TIMEZONE", "Europe/Dublin")
    dag = build_backfill_dag(None)
    assert dag.timetable.can_be_scheduled is bool(schedule)
    if schedule:
        assert dag.timetable.serialize()["expression"] == schedule
        assert str(dag.timezone) == "Europe/Dublin"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.get_task("load").partial_kwargs["retries"] == 0


def test_watch_runs_hourly(dags: dict[str, Any]) -> None:
    """bi_watch runs every hour, is retried, and does not make up for missed hours."""
    dag = dags["bi_watch"]
    assert dag.timetable.serialize()["expression"] == "0 * * * *"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert [(task.task_id, task.retries) for task in dag.tasks] == [("watch", 6)]


def test_digest_follows_monthly_assets(dags: dict[str, Any]) -> None:
    """Any publish of a monthly collection starts bi_digest, whose one task is retried; it has no start to wait for."""
    dag = dags["bi_digest"]
    condition = dag.timetable.asset_condition
    assert isinstance(condition, AssetAny)
    assert {asset.name for asset in condition.objects} == {"monthly_submissions", "monthly_sessions", "top_users"}
    assert (dag.catchup, dag.max_active_runs, dag.start_date) == (False, 1, None)
    assert [(task.task_id, task.retries) for task in dag.tasks] == [("send", 6)]


def test_dags_and_tasks_have_docs(dags: dict[str, Any]) -> None:
    """Each DAG and task has documentation in the UI."""
    for dag in dags.values():
        assert "MEG" in dag.doc_md
        assert "{" not in dag.doc_md
        assert ("the slice would shrink too much" in dag.doc_md) is dag.dag_id.endswith("ly")
        assert dag.description
        groups = dag.task_group.get_task_group_dict()
        assert all(group.tooltip for name, group in groups.items() if name)
        for job in (job for job in JOBS if job.cadence.dag_id == dag.dag_id):
            assert job.celery_task in groups[job.name].tooltip
            assert f"`{job.name}`" in dag.doc_md
            assert f"`{job.celery_task}`" in dag.doc_md


def test_late_jobs_wait_until_one(dags: dict[str, Any]) -> None:
    """Sessions and top users start at 01:00."""
    dag = dags["bi_monthly"]
    jobs = {name.split(".")[0] for name in dag.get_task("wait_until_01_00").downstream_task_ids}
    assert jobs == {"monthly_sessions", "top_users"}
    assert {name.split(".")[0] for name in dag.get_task("gate").downstream_task_ids} == {
        "monthly_submissions",
        "wait_until_01_00",
    }


def test_trigger_form_offers_jobs_and_regions(dags: dict[str, Any]) -> None:
    """The trigger form offers the DAG's jobs and regions."""
    params = dags["bi_monthly"].params.dump()
    assert params == {
        "jobs": ["monthly_submissions", "monthly_sessions", "top_users"],
        "regions": ["eu", "uk"],
        "period": None,
        "force": False,
        "dry_run": False,
    }


@pytest.mark.parametrize(
    "param", [{"period": 202610}, {"period": ["2026-10"]}, {"regions": ["mars"]}, {"jobs": ["all"]}, {"force": "yes"}]
)
def test_trigger_form_refuses_invalid_values(dags: dict[str, Any], param: dict[str, Any]) -> None:
    """The trigger form refuses values of the wrong type."""
    [(name, value)] = param.items()
    with pytest.raises(ParamValidationError):
        dags["bi_monthly"].params.get_param(name).resolve(value)


def test_invalid_setting_is_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid setting is an import error that names it."""
    monkeypatch.setenv("BI_MAX_PARALLEL_CHUNKS", "many")
    with pytest.raises(SettingsError, match="BI_MAX_PARALLEL_CHUNKS"):
        build_dag(Cadence.MONTHLY, None)


@pytest.mark.parametrize("dag_file", sorted((ROOT / "dags").glob("*.py")), ids=lambda file: file.stem)
def test_parsing_imports_no_driver(dag_file: Path) -> None:
    """Parsing a DAG connects to nothing and imports no driver."""
    program = (
        "import runpy, socket, sys\n"
        "import airflow.sdk\n"
        "def refuse(*_): raise AssertionError('a connection while parsing')\n"
        "socket.socket.connect = refuse\n"
        "before = set(sys.modules)\n"
        f"runpy.run_path({str(dag_file)!r})\n"
        "heavy = {'psycopg', 'pymongo', 'bson', 'pandas', 'sqlalchemy'} & (set(sys.modules) - before)\n"
        "assert not heavy, heavy\n"
    )
    run_in_new_process(program)


TASK_MODULES = {"bi_ops.load.publish", "pymongo.synchronous.auth", "airflow.sdk.bases.sensor"}
PAGE_MODULES = {"bi_ops.reports.web", "bi_ops.airflow.reports_connection"}
DRIVERS = {"psycopg", "pymongo"}


@pytest.mark.parametrize(
    ("command", "executor", "imported"),
    [
        ("scheduler", "LocalExecutor", TASK_MODULES | DRIVERS),
        ("scheduler", "CeleryExecutor", set()),
        ("api-server", "LocalExecutor", PAGE_MODULES | DRIVERS),
        ("triggerer", "LocalExecutor", set()),
    ],
)
def test_plugin_preloads_imports(command: str, executor: str, imported: set[str]) -> None:
    """A scheduler that forks tasks preloads their imports, an API server those of the page, and others nothing."""
    run_in_new_process(
        "import sys\n"
        f"sys.argv = ['airflow', {command!r}]\n"
        "from bi_ops.plugin import MegBiPlugin\n"
        "MegBiPlugin.on_load()\n"
        f"preloaded = {TASK_MODULES | PAGE_MODULES | DRIVERS} & sys.modules.keys()\n"
        f"assert preloaded == {imported or 'set()'}, preloaded\n",
        AIRFLOW__CORE__EXECUTOR=executor,
    )


def run_in_new_process(program: str, **environment: str) -> None:
    """Run Python code in a new process, in which nothing is imported yet."""
    home = {"PYTHONPATH": "plugins", "PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(ROOT / ".local/test/airflow")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**home, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_job_sql_names_no_meg_table(job: Any) -> None:
    """Each job's SQL has a header and names no table of MEG."""
    text = (include_dir() / "sql" / f"{job.name}.sql").read_text()
    assert text.startswith("-- ")
    assert all(word in text for word in ("-- grain", "-- window", "-- units"))
    assert all(word in text for word in ("-- instant", "-- reading")) == (job.mode is LoadMode.REPLACE_REGION)
    assert "megforms_" not in text
    assert "megforms_" in render_sql(f"{job.name}.sql")


def test_jobs_are_declared_consistently() -> None:
    assert len({job.name for job in JOBS}) == len(JOBS)
    for job in JOBS:
        names = [field.name for field in job.fields]
        assert len(set(names)) == len(names)
        assert set(job.key_fields) <= set(names)
        assert not job.chunked or job.key == "{form_id}"
        assert job.mode in LoadMode


@pytest.mark.parametrize(
    ("job", "forms", "requested", "label"),
    [
        ("monthly_submissions", "form 7", None, "2026-10: form 7"),
        ("monthly_submissions", "forms 11\N{EN DASH}20", "2025-02", "2025-02: forms 11\N{EN DASH}20"),
        ("top_users", "everything", None, "2026-11-01: everything"),
        ("top_users", "everything", "2026-09", "2026-10-01: everything"),
    ],
)
def test_map_label_names_period_and_forms(
    job: str, forms: str, requested: str | None, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label of a mapped task names its period and its forms, also before it has run."""
    monkeypatch.setenv("BI_TIMEZONE", "Europe/Dublin")
    run = SimpleNamespace(
        run_after=utc(2026, 11, 1),
        run_type="scheduled",
        logical_date=utc(2026, 9, 30, 23),
        data_interval_start=utc(2026, 9, 30, 23),
        data_interval_end=utc(2026, 11, 1),
    )
    operator = StageOperator(task_id=f"{job}.eu.stage", sql="", load="", forms=forms)
    assert operator.map_label(run, requested) == label


def test_plugins_folder_has_one_plugin() -> None:
    """Airflow's plugin manager finds one plugin."""
    ignored = (ROOT / "plugins" / ".airflowignore").read_text()
    assert "*" in ignored.splitlines()
    assert {path.name for path in Path(ROOT / "plugins").iterdir() if path.suffix == ".py"} == set()


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_lineage_names_meg_tables(job: Any) -> None:
    """Lineage names MEG's tables and nothing else."""
    schema = (include_dir() / "meg" / "schema.sql").read_text()
    tables = extract_tables(render_sql(f"{job.name}.sql"))
    assert "megforms_institution" in tables
    assert set(tables) <= set(re.findall(r"CREATE TABLE (\w+)", schema))
