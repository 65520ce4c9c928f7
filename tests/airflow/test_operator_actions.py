"""Tests what an operator can do in Airflow's UI, through its REST API and under its real scheduler."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pendulum
import pytest
from playwright.sync_api import expect

from bi_ops.catalog.jobs import get_job
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.mongo.store import Store
from dev import airflow, run_dags
from dev.airflow import AirflowServices
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from dev.processes import stop
from tests.airflow_env import NO_SCHEDULED_RUNS, AirflowApi, new_airflow
from tests.conftest import STACK
from tests.load_helpers import API_PAUSE, live_documents, live_raw_documents, monthly_slice, wait_until
from tests.meg_factory import MegFactory, utc
from tests.reports.browser import NEEDS_CHROMIUM, SCREENSHOTS_DIR, log_in

pytestmark = pytest.mark.airflow

DAG = "bi_monthly"
JOB = "monthly_submissions"
SESSIONS = "monthly_sessions"
ONE_JOB = {"jobs": [JOB], "regions": ["eu"]}
START = pendulum.now("UTC").start_of("month").subtract(months=2)
"""The first month that the schedule covers, so that there are two scheduled runs."""
LAST_MONTH = Period.last_ended(pendulum.now("UTC"), Cadence.MONTHLY, "UTC").name


@dataclass(frozen=True)
class Region:
    """A running Airflow over the region eu, which has 25 forms.

    Attributes:
        dag: The monthly DAG.
        services: Airflow's processes; a change of `environment` applies to those that start after it.
        environment: Their environment.
        store: The MongoDB databases.
        servers: The databases.
    """

    dag: AirflowApi
    services: AirflowServices
    environment: dict[str, str]
    store: Store
    servers: DatabaseServers

    def execute(self, sql: str) -> None:
        with self.servers.postgres.connect("meg_eu") as connection:
            connection.execute(sql)

    def submissions(self, form: int) -> int:
        [document] = [
            document for document in live_documents(self.store, monthly_slice()) if document["form_id"] == form
        ]
        return int(document["submissions"])

    def restart_scheduler(self, **environment: str) -> None:
        """Start the scheduler, and with it the tasks, under another environment."""
        self.environment.update(environment)
        stop(self.services.services["scheduler"])
        self.services.start("scheduler").wait_until(self._is_scheduling, seconds=120)

    def _is_scheduling(self) -> bool:
        return bool(self.dag.get("/monitor/health")["scheduler"]["status"] == "healthy")


@pytest.fixture(scope="module")
def region(servers: DatabaseServers) -> Iterator[Region]:
    with servers.mongo_admin.client() as admin:
        for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging"):
            admin.drop_database(name)
    with servers.postgres.connect("meg_eu") as connection:
        MegFactory(connection).bulk_forms(25)
    settings = {**NO_SCHEDULED_RUNS, "BI_START_DATE": START.to_date_string(), "BI_MAX_MAPPED_TASKS": "3"}
    settings |= servers.connections({"eu": "meg_eu"})
    environment = new_airflow(servers, STACK, settings)
    with (
        airflow.run_services(STACK, environment, servers.secret, triggerer=False) as services,
        services.api() as api,
        servers.mongo.client() as client,
    ):
        run_dags.run_and_wait(api, run_dags.RunRequest(DAG, scheduled_after=START, count=2), seconds=300)
        yield Region(AirflowApi(api, DAG), services, environment, Store(client, LIVE_DATABASE), servers)


@pytest.fixture(autouse=True)
def _forms(region: Region) -> None:
    """Prepare 25 forms, and delete the live documents of earlier tests."""
    for name in region.store.live.list_collection_names():
        region.store.live[name].delete_many({})
    with region.servers.postgres.connect("meg_eu") as connection:
        MegFactory(connection).bulk_forms(25)


def load_october(region: Region, run_id: str = "", **conf: Any) -> str:
    run_id = region.dag.trigger(run_id, **{**ONE_JOB, "period": "2026-10", **conf})
    assert region.dag.wait_for_run(run_id) == "success"
    return run_id


def last_lines(region: Region, run_id: str, task_id: str, map_index: int = -1) -> str:
    return "\n".join(region.dag.log_lines(run_id, task_id, map_index))


def test_task_marked_success_is_not_published(region: Region) -> None:
    """A failed stage task is marked success in the UI: publish runs, and refuses."""
    load_october(region, jobs=[SESSIONS])
    before = live_raw_documents(region.store, monthly_slice(job=get_job(SESSIONS)))
    assert len(before) == 25
    region.execute(
        "UPDATE megforms_auditsession SET started_at = '-infinity', ended_at = '-infinity' WHERE form_id = 15"
    )
    run_id = region.dag.trigger(jobs=[SESSIONS], regions=["eu"], period="2026-10")
    assert region.dag.wait_for_run(run_id) == "failed"
    tasks = region.dag.tasks(run_id)
    assert [tasks[f"{SESSIONS}.eu.stage", index]["state"] for index in range(3)] == ["success", "failed", "success"]
    assert "form 15" in last_lines(region, run_id, f"{SESSIONS}.eu.stage", 1)
    region.dag.api.patch(
        f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{SESSIONS}.eu.stage/1", json={"new_state": "success"}
    ).raise_for_status()
    region.dag.clear(run_id, task_ids=[f"{SESSIONS}.eu.publish"])
    publish = region.dag.tasks(run_id)[f"{SESSIONS}.eu.publish", -1]
    assert publish["state"] == "failed"
    log = last_lines(region, run_id, f"{SESSIONS}.eu.publish")
    assert "1 of 3 not completed: stage[" in log
    assert "stage[1]" in log
    assert live_raw_documents(region.store, monthly_slice(job=get_job(SESSIONS))) == before


def test_older_run_never_overwrites_newer_reading(region: Region) -> None:
    """Publish, then one chunk, of an older run are cleared after a newer run has loaded the month."""
    older = load_october(region)
    with region.servers.postgres.connect("meg_eu") as connection:
        meg_factory = MegFactory(connection)
        meg_factory.bulk_forms(25)
        meg_factory.session(7, utc(2026, 10, 9), observations=500)
    newer = load_october(region)
    assert region.submissions(7) == 501
    before = live_raw_documents(region.store, monthly_slice())
    for cleared in ([f"{JOB}.eu.publish"], [[f"{JOB}.eu.stage", 1]]):
        assert region.dag.clear(older, task_ids=cleared) == "success"
        assert region.dag.tasks(older)[f"{JOB}.eu.publish", -1]["state"] == "skipped"
        log = last_lines(region, older, f"{JOB}.eu.publish")
        assert "a newer reading is already live" in log
        assert newer in log
        assert live_raw_documents(region.store, monthly_slice()) == before
    assert region.dag.clear(newer, task_ids=[[f"{JOB}.eu.stage", 1]]) == "success"
    assert region.dag.tasks(newer)[f"{JOB}.eu.publish", -1]["state"] == "success"


def test_removed_xcom_of_stage_changes_nothing(region: Region) -> None:
    run_id = load_october(region)
    before = live_raw_documents(region.store, monthly_slice())
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{JOB}.eu.stage/xcomEntries/return_value"
    region.dag.api.delete(path, params={"map_index": 1}).raise_for_status()
    assert region.dag.clear(run_id, task_ids=[f"{JOB}.eu.publish"]) == "success"
    assert live_raw_documents(region.store, monthly_slice()) == before


def test_removed_xcom_of_plan_fails_at_once(region: Region) -> None:
    """As after `airflow db clean`: the task is not retried, and the log names the task group to clear."""
    run_id = load_october(region)
    before = live_raw_documents(region.store, monthly_slice())
    with region.servers.postgres.connect(airflow.METADATA_DATABASE) as metadata:
        metadata.execute("DELETE FROM xcom WHERE run_id = %s", (run_id,))
    for task, index in ((f"{JOB}.eu.publish", -1), (f"{JOB}.eu.stage", 1)):
        tries = region.dag.tasks(run_id)[task, index]["try_number"]
        cleared = [task] if index < 0 else [[task, index]]
        assert region.dag.clear(run_id, task_ids=cleared, include_downstream=False) == "failed"
        instance = region.dag.tasks(run_id)[task, index]
        assert (instance["state"], instance["try_number"]) == ("failed", tries + 1)
        assert f"Clear the task group {JOB}.eu" in last_lines(region, run_id, task, index)
    assert live_raw_documents(region.store, monthly_slice()) == before
    assert region.dag.clear(run_id, task_ids=[f"{JOB}.eu.plan"]) == "success"


def test_run_created_again_loads_from_scratch(region: Region) -> None:
    """A run is deleted and created again with the same id, while its staged data still exists."""
    run_id = load_october(region, "again")
    region.dag.api.delete(f"/dags/{DAG}/dagRuns/{run_id}").raise_for_status()
    region.execute("DELETE FROM megforms_observation WHERE form_id = 3")
    load_october(region, "again")
    assert region.submissions(3) == 0
    assert len(region.store.loads.distinct("_id", {"run_id": "again"})) == 2


@pytest.mark.parametrize(
    ("conf", "allowed", "actual"),
    [
        ({"regions": []}, "regions: a list of one or more of eu", "regions: []"),
        ({"jobs": []}, "jobs: a list of one or more of monthly_submissions", "jobs: []"),
        ({"Period": "2026-10"}, "only the parameters jobs, regions", "did you mean period?"),
        ({"period": "May 2026"}, "period: a month such as 2026-10", "'May 2026'"),
        ({"period": "2031-01"}, f"the latest is {LAST_MONTH}", "2031-01"),
    ],
)
def test_gate_refuses_invalid_request(region: Region, conf: dict[str, Any], allowed: str, actual: str) -> None:
    run_id = region.dag.trigger(**conf)
    assert region.dag.wait_for_run(run_id) == "failed"
    tasks = region.dag.tasks(run_id)
    assert tasks["gate", -1]["state"] == "failed"
    assert {task["state"] for (name, _), task in tasks.items() if name != "gate"} == {"upstream_failed"}
    lines = region.dag.log_lines(run_id, "gate")
    text = " ".join(line.strip() for line in lines)
    assert allowed in text
    assert actual in text
    assert max(len(line) for line in lines if line.startswith(("Expected:", "Actual:", "Hint:", "    "))) <= 84


def test_log_lists_reason_by_line(region: Region) -> None:
    """Failed, skipped and dry runs log one statement per line, short enough for Airflow's log view."""
    run_id = load_october(region, dry_run=True)
    lines = region.dag.log_lines(run_id, f"{JOB}.eu.publish")
    assert f"{JOB} eu 2026-10: dry run: checked, but not published" in lines
    assert any(line.startswith("Actual: 25 documents would replace") for line in lines)
    assert "Hint: Trigger the run without dry_run to publish." in lines
    assert region.dag.tasks(run_id)["wait_until_01_00", -1]["state"] == "skipped", "no selected job waits"


def test_unselected_tasks_start_no_process(region: Region) -> None:
    """The gate skips what a run does not select; a cleared task of it is skipped again."""
    run_id = load_october(region, jobs=[SESSIONS])
    tasks = region.dag.tasks(run_id)
    unselected = {(f"{job}.eu.{step}", -1) for job in (JOB, "top_users") for step in ("plan", "stage", "publish")}
    assert {key for key, task in tasks.items() if task["state"] == "skipped"} == unselected
    assert {(tasks[key]["try_number"], tasks[key]["hostname"] or "") for key in unselected} == {(0, "")}
    [line] = [line for line in region.dag.log_lines(run_id, "gate") if "do not select" in line]
    assert line.endswith(f": {JOB}.eu.plan, top_users.eu.plan")

    assert region.dag.clear(run_id, task_ids=[f"{JOB}.eu.plan", "top_users.eu.plan"]) == "success"
    cleared = region.dag.tasks(run_id)
    assert {cleared[key]["state"] for key in unselected} == {"skipped"}
    reason = "top_users: the run's parameters do not select this task"
    assert reason in region.dag.log_lines(run_id, "top_users.eu.plan"), "behind the wait it skips itself"


@NEEDS_CHROMIUM
def test_log_reason_fits_window(region: Region) -> None:
    """Each line of an error fits into Airflow's log view in a window of 1280 px."""
    run_id = region.dag.trigger(jobs=[], period="2031-10")
    assert region.dag.wait_for_run(run_id) == "failed"
    with log_in(region.services) as (_, page):
        page.goto(f"{region.services.url}/dags/{DAG}/runs/{quote(run_id)}/tasks/gate")
        view = page.get_by_test_id("virtualized-list")
        expect(view.get_by_text("Hint:")).to_be_visible(timeout=30_000)
        page.screenshot(path=SCREENSHOTS_DIR / "log.png")
        view_box = view.bounding_box()
        assert view_box
        lines = view.get_by_text(re.compile(r"^(DAG bi_monthly:|Expected:|Actual:|Hint:)")).all()
        line_ends = [box["x"] + box["width"] for line in lines if (box := line.bounding_box())]
    assert len(line_ends) >= 6
    assert max(line_ends) <= view_box["x"] + view_box["width"]


def test_command_line_loads_last_ended_month(region: Region) -> None:
    """`airflow dags trigger` without a logical date, and Materialize on an asset: neither has a data interval."""
    conf = json.dumps({"jobs": [JOB]})
    run_id = _trigger_by_command_line(region, "--conf", conf, "--run-id", "by-command-line")
    assert region.dag.wait_for_run(run_id) == "success"
    assert _get_period(region, run_id) == LAST_MONTH
    assets = {asset["name"]: asset["id"] for asset in region.dag.get("/assets", limit=100)["assets"]}
    run_id = region.dag.post(f"/assets/{assets[JOB]}/materialize", {})["dag_run_id"]
    assert region.dag.wait_for_run(run_id) == "success"
    assert _get_period(region, run_id) == LAST_MONTH


def test_logical_date_loads_same_month(region: Region) -> None:
    """A logical date gives the same month by form, API and command line."""
    date = START.add(days=14)
    by_api = region.dag.trigger("by-api", logical_date=date.isoformat(), **ONE_JOB)
    conf, later_date = json.dumps(ONE_JOB), date.add(seconds=1).isoformat()
    by_command = _trigger_by_command_line(region, "-l", later_date, "--conf", conf, "--run-id", "by-date")
    for run_id in (by_api, by_command):
        assert region.dag.wait_for_run(run_id) == "success"
        assert _get_period(region, run_id) == START.subtract(months=1).format("YYYY-MM")


def _trigger_by_command_line(region: Region, *options: str) -> str:
    command = [sys.executable, "-m", "airflow", "dags", "trigger", DAG, *options]
    result = subprocess.run(command, env=region.environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return options[options.index("--run-id") + 1]


def _get_period(region: Region, run_id: str) -> str:
    load = region.store.loads.find_one({"run_id": run_id, "job": JOB}, sort=[("staged_at", -1)])
    assert load
    return str(load["period"])


@pytest.mark.parametrize("state", ["failed", "running"])
def test_run_can_be_cleared_and_marked(region: Region, state: str) -> None:
    """Both actions work for a failed and for a running run, with the default settings."""
    with region.servers.postgres.connect("meg_eu") as blocker:
        run_id = region.dag.trigger(**(ONE_JOB | ({"regions": []} if state == "failed" else {"period": "2026-10"})))
        if state == "failed":
            assert region.dag.wait_for_run(run_id) == "failed"
        else:
            blocker.execute("BEGIN; LOCK TABLE megforms_auditsession IN ACCESS EXCLUSIVE MODE")
            wait_until(
                lambda: region.dag.tasks(run_id)[f"{JOB}.eu.plan", -1]["state"] == "running", 60, pause=API_PAUSE
            )
        path = f"/dags/{DAG}/dagRuns/{run_id}"
        assert region.dag.api.post(f"{path}/clear", json={"dry_run": False}).is_success
        # Airflow's API may lose a deadlock with its scheduler, which a second click resolves.
        wait_until(lambda: region.dag.api.patch(path, json={"state": "failed"}).is_success, 20, pause=API_PAUSE)
        blocker.rollback()
    body = {"dag_id": DAG, "from_date": "2026-10-01", "to_date": "2026-10-01", "reprocess_behavior": "completed"}
    response = region.dag.api.post("/backfills/dry_run", json=body)
    assert response.status_code < 500, response.text
    wait_until(lambda: region.dag.get(path)["state"] in ("failed", "success"), 120, pause=API_PAUSE)


def test_run_after_in_future_blocks_schedule(region: Region) -> None:
    """The run stays queued as the DAG's only active run until it is deleted, as docs/runbook.md says."""
    body = {"logical_date": None, "run_after": pendulum.now("UTC").add(years=1).isoformat(), "conf": ONE_JOB}
    waiting = region.dag.post(f"/dags/{DAG}/dagRuns", body)["dag_run_id"]
    load_october(region)
    assert region.dag.get(f"/dags/{DAG}/dagRuns/{waiting}")["state"] == "queued"
    assert _may_schedule(region) is False
    region.dag.api.delete(f"/dags/{DAG}/dagRuns/{waiting}").raise_for_status()
    load_october(region)
    assert _may_schedule(region) is True


def _may_schedule(region: Region) -> bool:
    """Whether Airflow's scheduler would create the DAG's next scheduled run."""
    with region.servers.postgres.connect(airflow.METADATA_DATABASE) as metadata:
        query = "SELECT NOT exceeds_max_non_backfill FROM dag WHERE dag_id = %s"
        [(may_schedule,)] = metadata.execute(query, (DAG,)).fetchall()
    return bool(may_schedule)


def test_cleared_tasks_check_gate_and_settings(region: Region) -> None:
    """Tasks of an old run are cleared after `BI_AGGREGATE` was switched off, and after the time zone changed."""
    run_id = load_october(region)
    region.execute("DELETE FROM megforms_observation WHERE form_id = 15")
    before = live_raw_documents(region.store, monthly_slice())
    try:
        region.restart_scheduler(BI_AGGREGATE="0")
        for cleared in ([[f"{JOB}.eu.stage", 1]], [f"{JOB}.eu.plan"], [f"{JOB}.eu.publish"]):
            region.dag.clear(run_id, task_ids=cleared)
            assert region.dag.tasks(run_id)[f"{JOB}.eu.publish", -1]["state"] == "skipped"
            assert live_raw_documents(region.store, monthly_slice()) == before
        new_run_id = region.dag.trigger(**ONE_JOB, period="2026-10")
        assert region.dag.wait_for_run(new_run_id) == "success"
        assert region.dag.tasks(new_run_id)[f"{JOB}.eu.plan", -1]["state"] == "skipped"
        region.restart_scheduler(BI_AGGREGATE="1")
        region.dag.clear(run_id, task_ids=[f"{JOB}.eu.plan"])
        region.restart_scheduler(BI_TIMEZONE="America/New_York")
        before = live_raw_documents(region.store, monthly_slice())
        assert region.dag.clear(run_id, task_ids=[[f"{JOB}.eu.stage", 1]]) == "failed"
        stage = region.dag.tasks(run_id)[f"{JOB}.eu.stage", 1]
        assert stage["state"] == "failed"
        log = last_lines(region, run_id, f"{JOB}.eu.stage", 1)
        assert "BI_TIMEZONE has changed since this load was planned" in log
        assert f"Clear the task group {JOB}.eu" in log
        assert live_raw_documents(region.store, monthly_slice()) == before
        scheduled = f"scheduled__{START.format('YYYY-MM')}__{START.add(months=1).isoformat()}"
        assert region.dag.clear(scheduled, task_ids=[f"{JOB}.eu.plan"]) == "success"
        assert _get_period(region, scheduled) == START.format("YYYY-MM")
    finally:
        region.restart_scheduler(BI_AGGREGATE="1", BI_TIMEZONE="UTC")
