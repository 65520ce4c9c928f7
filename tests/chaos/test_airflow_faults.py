"""Tests Airflow's real scheduler killed amid a DAG run, and its page while MongoDB is frozen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pendulum
import psutil
import pytest

from dev import airflow, demo_meg
from dev.airflow import AirflowServices
from dev.embedded_stack import databases, stack_lock
from tests.airflow_env import FAST_FAILURE_DETECTION, NO_SCHEDULED_RUNS, new_airflow
from tests.chaos.attempt import MONTH
from tests.chaos.environment import MONGOD_PARAMETERS, SEED, STACK, ChaosEnvironment
from tests.chaos.proxy import proxies
from tests.load_helpers import SUBMISSIONS, wait_until
from tests.reports.page_load import put_under_load

pytestmark = pytest.mark.airflow

DAG = "bi_monthly"
WORKER = "airflow worker -- "
"""The process titles of LocalExecutor's workers, and of their tasks, start with this."""
STUCK_SECONDS = 20
"""Seconds in the queue after which no worker takes a task."""
MAX_VERSION_SECONDS = 5.0
"""A tenth of the time of an API call when the page waits for MongoDB in the API's own threads."""
FROZEN_SECONDS = 8.0
MAX_ROUNDS = 10
"""The maximum number of rounds to inject enough faults."""


@dataclass
class AirflowUnderTest:
    """A running Airflow over the environment. The scheduler and its child processes are a session of their own.

    Attributes:
        airflow: Its processes.
        api: Its REST API.
        chaos: The databases and their reader.
    """

    airflow: AirflowServices
    api: httpx.Client
    chaos: ChaosEnvironment

    def trigger(self) -> None:
        """Load the month with a DAG run, and wait for its end."""
        body = {"logical_date": None, "conf": {"period": MONTH.name, "jobs": [SUBMISSIONS.name]}}
        response = self.api.post(f"/dags/{DAG}/dagRuns", json=body)
        assert response.is_success, response.text
        path = f"/dags/{DAG}/dagRuns/{response.json()['dag_run_id']}"
        deadline = time.monotonic() + 300
        not_stuck_before = 0.0
        while (state := self.api.get(path).json()["state"]) not in ("success", "failed"):
            if self.airflow.services["scheduler"].process.poll() is not None:
                self.airflow.start("scheduler")  # from this thread: a service ends with the thread that started it
                not_stuck_before = time.monotonic() + STUCK_SECONDS
            elif time.monotonic() > not_stuck_before and self.is_stuck(path) and self.kill_scheduler():
                self.chaos.stats.freed += 1
            assert time.monotonic() < deadline, f"the run is {state}"
            time.sleep(0.5)
        assert state == "success"
        self.chaos.stats.loads += 1

    def is_stuck(self, run: str) -> bool:
        """Whether a task of the run stays queued until the scheduler is started again (docs/runbook.md).

        LocalExecutor gives no other worker the task of one that was killed before it started the task; and a worker
        that is killed while it waits for a task keeps the queue's lock.
        """
        queued = self.api.get(f"{run}/taskInstances", params={"state": "queued"}).json()["task_instances"]
        limit = pendulum.now("UTC").subtract(seconds=STUCK_SECONDS)
        return any(pendulum.parse(task["queued_when"]) < limit for task in queued)

    def kill_scheduler(self) -> bool:
        """Kill the scheduler and its child processes, as the end of its container does; returns whether it was running.

        A worker of LocalExecutor that outlives its scheduler keeps the scheduler's connection to the metadata database
        open, with its locks: a new scheduler would then wait forever.
        """
        scheduler = self.airflow.services["scheduler"].process
        if not processes(scheduler.pid, WORKER):
            return False  # it is still starting
        scheduler.kill()
        scheduler.wait()
        while remaining := processes(scheduler.pid, ""):
            for process in remaining:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        return True

    def freeze_mongo_under_page_load(self) -> bool:
        """Freeze MongoDB amid a transaction, and request the page meanwhile; returns whether there was a transaction.

        No call of Airflow's API may wait for MongoDB: a running task that cannot reach the API fails.
        """
        if not self.chaos.wait_for_transaction():
            return False
        headers = {"Authorization": self.api.headers["Authorization"]}
        self.chaos.mongod.freeze()
        try:
            load = put_under_load(
                self.airflow.url, version_path="/api/v2/version", headers=headers, min_seconds=FROZEN_SECONDS
            )
        finally:
            self.chaos.mongod.thaw()
        load.assert_unavailable()
        p99 = f"p99 {load.p99_ms:.0f} ms of {len(load.version)} calls"
        self.chaos.stats.remarks.append(f"GET /api/v2/version while MongoDB is frozen under page load: {p99}")
        assert max(load.version) < MAX_VERSION_SECONDS
        return True

    def kill_child(self, title: str, exclude: str) -> bool:
        """Kill a child process of the scheduler with such a title; returns whether there was one."""
        matching = processes(self.airflow.services["scheduler"].process.pid, title, exclude)
        if not matching:
            return False
        try:
            self.chaos.random.choice(matching).kill()
        except psutil.NoSuchProcess:
            return False
        return True


def processes(session: int, title: str, exclude: str | None = None) -> list[psutil.Process]:
    """A session's processes whose title starts with `title` and lacks `exclude`; an ended one has no title."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (command_line := " ".join(process.info["cmdline"] or ()))
        and command_line.startswith(title)
        and (exclude is None or exclude not in command_line)
        and _session(process) == session
    ]


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


@pytest.fixture(scope="module")
def installation(*, all_faults: bool) -> Iterator[AirflowUnderTest]:
    if not all_faults:
        pytest.skip("takes minutes: make chaos")
    with stack_lock(STACK), databases(STACK, MONGOD_PARAMETERS) as servers:
        demo_meg.seed_database(servers.postgres, "meg_eu", None)
        settings = {
            **NO_SCHEDULED_RUNS,
            "BI_FORMS_PER_CHUNK": "100",
            **FAST_FAILURE_DETECTION,
            **servers.connections({"eu": "meg_eu"}),
        }
        environment = new_airflow(servers, STACK, settings)
        with (
            airflow.run_services(STACK, environment, servers.secret, triggerer=False) as services,
            services.api() as api,
            proxies(servers.postgres.port, servers.mongo.port) as (to_meg, to_mongo),
        ):
            chaos = ChaosEnvironment(servers, to_meg, to_mongo)
            with chaos.live_month():
                wait_until(lambda: api.get(f"/dags/{DAG}").is_success, 120)
                api.patch(f"/dags/{DAG}", json={"is_paused": False}).raise_for_status()
                yield AirflowUnderTest(services, api, chaos)


def fault(name: str, times: int, kill: Callable[[AirflowUnderTest], bool]) -> Any:
    return pytest.param(name, times, kill, id=name)


@pytest.mark.parametrize(
    ("name", "times", "kill"),
    [
        fault("scheduler killed and started again", 3, AirflowUnderTest.kill_scheduler),
        fault("Airflow's task killed", 8, lambda target: target.kill_child(WORKER, "LocalExecutor")),
        fault("Airflow's worker killed", 2, lambda target: target.kill_child(f"{WORKER}LocalExecutor: ", "<idle>")),
        fault("MongoDB frozen under page load", 3, AirflowUnderTest.freeze_mongo_under_page_load),
    ],
)
def test_month_survives_airflow_fault(
    installation: AirflowUnderTest,
    name: str,
    times: int,
    kill: Callable[[AirflowUnderTest], bool],
    record_property: Callable[[str, object], None],
) -> None:
    """A month is loaded whole while parts of Airflow are killed."""
    chaos = installation.chaos
    chaos.random.seed(f"{SEED} {name}")

    def disturb() -> None:
        while chaos.stats.faults[name] < times and chaos.loading.is_set():
            time.sleep(chaos.random.uniform(1, 4))  # not more often: no task may die at every attempt
            if chaos.loading.is_set() and kill(installation):
                chaos.stats.faults[name] += 1

    for _ in range(MAX_ROUNDS):
        if chaos.stats.faults[name] < times:
            chaos.round(installation.trigger, disturb)
    record_property("chaos", chaos.stats.as_property("Airflow's processes"))
    assert chaos.stats.faults[name] >= times, f"BI_CHAOS_SEED={SEED}"
    chaos.assert_whole()
