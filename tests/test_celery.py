"""The same DAGs on CeleryExecutor: several workers divide a month, and one that dies takes nothing with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pendulum
import pytest

from bi_ops.store import Store
from dev import airflow, workers
from dev.processes import Service
from dev.stack import Databases
from tests.conftest import ROOT, STACK
from tests.loads import SUBMISSIONS, live, month, until
from tests.megs import MegRows

FORMS = 60
RUN = "divided"
PATH = f"/dags/bi_monthly/dagRuns/{RUN}"


@dataclass(frozen=True)
class Divided:
    """A running Airflow whose tasks two workers do.

    Attributes:
        api: Airflow's REST API.
        workers: The workers.
        store: The MongoDB databases.
    """

    api: httpx.Client
    workers: list[Service]
    store: Store

    def staged(self) -> int:
        """How many stage tasks are done."""
        found = self.api.get(f"{PATH}/taskInstances", params={"limit": 200}).json()["task_instances"]
        return sum(each["task_id"].endswith(".stage") and each["state"] == "success" for each in found)


@pytest.fixture
def divided(servers: Databases, store: Store, rows: MegRows) -> Iterator[Divided]:
    rows.many_forms(FORMS)
    if servers.postgres.has(airflow.DATABASE):
        with servers.postgres.connect() as admin:
            admin.execute(f"DROP DATABASE {airflow.DATABASE} WITH (FORCE)")
    settings = {
        "BI_AGGREGATE": "1",
        "BI_START_DATE": pendulum.now().add(months=2).to_date_string(),  # nothing but what is triggered
        "MEG_REGIONS": "eu",
        "BI_FORMS_PER_CHUNK": "2",
        "PYTHONPATH": str(ROOT / "tests" / "policy"),
        "TEST_RETRIES": "6",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "3",
        **servers.connections({"eu": "meg_eu"}),
    }
    environment = airflow.environment(STACK, servers.postgres, servers.secret, settings)
    airflow.migrate(STACK, servers.postgres, servers.secret, environment)
    with (
        workers.broker(STACK, environment) as celery,
        airflow.running(STACK, environment | celery, servers.secret) as up,
        workers.working(up, STACK, count=2, concurrency=2) as both,
        up.api() as api,
    ):
        until(lambda: api.get("/dags/bi_monthly").is_success, 120)
        api.patch("/dags/bi_monthly", json={"is_paused": False}).raise_for_status()
        yield Divided(api, both, store)


def test_a_worker_that_is_killed_amid_a_month_loses_and_doubles_nothing(divided: Divided) -> None:
    conf = {"period": month().period.name, "jobs": [SUBMISSIONS.name]}
    body = {"dag_run_id": RUN, "logical_date": None, "conf": conf}
    assert divided.api.post("/dags/bi_monthly/dagRuns", json=body).is_success
    until(lambda: divided.staged() >= 6, 180)
    assert workers.kill(divided.workers[0]) > 1
    assert divided.staged() < FORMS / 2, "the month was loaded before the worker was killed"
    until(lambda: divided.api.get(PATH).json()["state"] in ("success", "failed"), 300)
    assert divided.api.get(PATH).json()["state"] == "success"
    found = live(divided.store, month())
    assert [each["form_id"] for each in found] == sorted(range(1, FORMS + 1), key=str)
    assert all(each["submissions"] == 1 for each in found)
    [row] = divided.store.ledger.find()
    assert row["documents"] == FORMS
    done = [len(re.findall(r"succeeded in", worker.log.read_text(errors="replace"))) for worker in divided.workers]
    assert min(done) > 0, f"one worker did nothing: {done}"
