"""Airflow under its real scheduler: killed amid a DAG run, or with its page requested while MongoDB is frozen."""

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
from tests.chaos.environment import ChaosEnvironment
from tests.chaos.proxy import proxies
from tests.chaos.test_faults import PARAMETERS, SEED, STACK
from tests.load_helpers import SUBMISSIONS, wait_until
from tests.page_load import put_under_load

pytestmark = pytest.mark.airflow

DAG = "bi_monthly"
WORKER = "airflow worker -- "
"""How the processes of LocalExecutor's workers, and of their tasks, call themselves."""
STUCK = 20
"""Seconds that a task is queued for, after which none comes for it any more."""
MAX_VERSION_SECONDS = 5.0
"""A tenth of what one call of Airflow's API took while the page waited for MongoDB in the API's own threads."""
FROZEN_SECONDS = 8.0
ROUNDS = 10
"""At most, until enough faults have been injected."""


@dataclass
class Installation:
    """A running Airflow over the world. A scheduler and what it starts are a session of their own.

    Attributes:
        up: Its processes.
        api: Its REST API.
        world: The databases, and who reads them.
    """

    up: AirflowServices
    api: httpx.Client
    world: ChaosEnvironment

    def trigger(self) -> None:
        """Load the month by a DAG run, and wait for its end."""
        body = {"logical_date": None, "conf": {"period": MONTH.name, "jobs": [SUBMISSIONS.name]}}
        answer = self.api.post(f"/dags/{DAG}/dagRuns", json=body)
        assert answer.is_success, answer.text
        path = f"/dags/{DAG}/dagRuns/{answer.json()['dag_run_id']}"
        deadline = time.monotonic() + 300
        patient_until = 0.0
        while (state := self.api.get(path).json()["state"]) not in ("success", "failed"):
            if self.up.services["scheduler"].process.poll() is not None:
                self.up.start("scheduler")  # from this thread: a service ends with the thread that started it
                patient_until = time.monotonic() + STUCK
            elif time.monotonic() > patient_until and self.is_stuck(path) and self.kill_scheduler():
                self.world.stats.freed += 1
            assert time.monotonic() < deadline, f"the run is {state}"
            time.sleep(0.5)
        assert state == "success"
        self.world.stats.loads += 1

    def is_stuck(self, run: str) -> bool:
        """Whether a task of the run is queued for ever, which a new scheduler heals (docs/runbook.md).

        LocalExecutor gives nobody else the task of a worker that was killed before it had started it; and a worker
        killed while it waits for one takes the queue's lock with it.
        """
        queued = self.api.get(f"{run}/taskInstances", params={"state": "queued"}).json()["task_instances"]
        long_ago = pendulum.now("UTC").subtract(seconds=STUCK)
        return any(pendulum.parse(each["queued_when"]) < long_ago for each in queued)

    def kill_scheduler(self) -> bool:
        """Kill the scheduler and all that it started, as the end of its container does; whether it was running.

        A worker of LocalExecutor that outlives its scheduler holds that one's connection to the metadata database open,
        with the locks that it had: a new scheduler then waits for ever.
        """
        scheduler = self.up.services["scheduler"].process
        if not processes(scheduler.pid, WORKER):
            return False  # it is still starting
        scheduler.kill()
        scheduler.wait()
        while left := processes(scheduler.pid, ""):
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        return True

    def freeze_mongo_under_page_load(self) -> bool:
        """Freeze MongoDB while a step is loading, and request the page until MongoDB goes on; whether it came to that.

        No call of Airflow's API may wait for MongoDB: a running task that cannot reach the API fails.
        """
        if not self.world.a_transaction():
            return False
        headers = {"Authorization": self.api.headers["Authorization"]}
        self.world.mongod.freeze()
        try:
            load = put_under_load(
                self.up.url, version_path="/api/v2/version", headers=headers, min_seconds=FROZEN_SECONDS
            )
        finally:
            self.world.mongod.thaw()
        load.assert_unavailable()
        p99 = f"p99 {load.p99_ms:.0f} ms of {len(load.version)} calls"
        self.world.stats.remarks.append(f"GET /api/v2/version while MongoDB is frozen under page load: {p99}")
        assert max(load.version) < MAX_VERSION_SECONDS
        return True

    def kill_one(self, title: str, but_not: str) -> bool:
        """Kill a process of the scheduler's that calls itself so; whether there was one."""
        found = processes(self.up.services["scheduler"].process.pid, title, but_not)
        if not found:
            return False
        try:
            self.world.random.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
        return True


def processes(session: int, title: str, but_not: str | None = None) -> list[psutil.Process]:
    """Those of a session that call themselves so; what has ended has no command line any more."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (words := " ".join(process.info["cmdline"] or ()))
        and words.startswith(title)
        and (but_not is None or but_not not in words)
        and _session(process) == session
    ]


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


@pytest.fixture(scope="module")
def installation(*, all_faults: bool) -> Iterator[Installation]:
    if not all_faults:
        pytest.skip("takes minutes: make chaos")
    with stack_lock(STACK), databases(STACK, PARAMETERS) as servers:
        demo_meg.seed_database(servers.postgres, "meg_eu", None)
        settings = {
            **NO_SCHEDULED_RUNS,
            "BI_FORMS_PER_CHUNK": "100",
            **FAST_FAILURE_DETECTION,
            **servers.connections({"eu": "meg_eu"}),
        }
        environment = new_airflow(servers, STACK, settings)
        with (
            airflow.run_services(STACK, environment, servers.secret) as up,
            up.api() as api,
            proxies(servers.postgres.port, servers.mongo.port) as (to_meg, to_mongo),
        ):
            world = ChaosEnvironment(servers, to_meg, to_mongo, SEED, STACK / "logs" / "tasks.log")
            with world.alive():
                wait_until(lambda: api.get(f"/dags/{DAG}").is_success, 120)
                api.patch(f"/dags/{DAG}", json={"is_paused": False}).raise_for_status()
                yield Installation(up, api, world)


def disturbing(name: str, times: int, kill: Callable[[Installation], bool]) -> Any:
    return pytest.param(name, times, kill, id=name)


@pytest.mark.parametrize(
    ("name", "times", "kill"),
    [
        disturbing("scheduler killed and started again", 3, Installation.kill_scheduler),
        disturbing("Airflow's task killed", 8, lambda each: each.kill_one(WORKER, "LocalExecutor")),
        disturbing("Airflow's worker killed", 2, lambda each: each.kill_one(f"{WORKER}LocalExecutor: ", "<idle>")),
        disturbing("MongoDB frozen under page load", 3, Installation.freeze_mongo_under_page_load),
    ],
)
def test_month_survives_airflow_fault(
    installation: Installation,
    name: str,
    times: int,
    kill: Callable[[Installation], bool],
    record_property: Callable[[str, object], None],
) -> None:
    """A month is loaded whole while parts of Airflow are killed."""
    world = installation.world

    def disturb() -> None:
        while world.stats.faults[name] < times and world.loading.is_set():
            time.sleep(world.random.uniform(1, 4))  # no oftener: it must not be one task that dies at every try
            if world.loading.is_set() and kill(installation):
                world.stats.faults[name] += 1

    for _ in range(ROUNDS):
        if world.stats.faults[name] < times:
            world.round(installation.trigger, disturb)
    figures = world.stats
    record_property("chaos", figures.as_property("Airflow's processes"))
    assert figures.faults[name] >= times
    assert (figures.lost, figures.doubled, figures.stale, figures.torn_reads) == (0, 0, 0, []), f"BI_CHAOS_SEED={SEED}"
