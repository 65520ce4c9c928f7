"""The environment into which faults are injected: both servers, a month that is loaded repeatedly, and its reader."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from pymongo.errors import PyMongoError

from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from dev.processes import run_as
from tests.chaos.attempt import MONTH, Kill, run_attempt
from tests.chaos.proxy import Proxy
from tests.chaos.reader import FORMS, READER_INDEX, Reader, expected
from tests.chaos.stats import ChaosStats
from tests.conftest import stack_folder
from tests.load_helpers import SUBMISSIONS, wait_until
from tests.meg_factory import MegFactory

STACK = stack_folder("chaos")
SEED = int(os.environ.setdefault("BI_CHAOS_SEED", str(int(time.time()))))  # for the processes of `pytest -n` too
MONGOD_PARAMETERS = {"transactionLifetimeLimitSeconds": "1", "enableTestCommands": "1"}
DEMO_INSTITUTION = 1_000_001
"""The institution that a form belongs to while it is missing."""
TRANSACTION_POLL = 0.005
"""Seconds between two looks for an open transaction."""
Attempt = tuple[str, Any, dict[str, Any]]
"""The outcome of a step, its result or error message, and its XComs."""
MAX_ATTEMPTS = 7
"""As many as the operators' retries allow."""
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "tests.chaos.attempt",
        "bi_ops.airflow.connections",
        "bi_ops.load.stage",
        "bi_ops.load.publish",
        "airflow.sdk.execution_time.cache",
        "airflow.sdk.execution_time.supervisor",
        "pymongo.saslprep",
        "pymongo.synchronous.auth",
        "tests.chaos.freeze_gc",  # after all others
    ]
)


class ChaosEnvironment:
    """Both servers with the region eu's MEG, and operations on them.

    Args:
        servers: The databases.
        to_meg: A proxy in front of PostgreSQL.
        to_mongo: A proxy in front of MongoDB.
    """

    def __init__(self, servers: DatabaseServers, to_meg: Proxy, to_mongo: Proxy) -> None:
        assert servers.postgres.pid
        assert servers.mongo.pid
        self.servers = servers
        self.to_meg, self.to_mongo = to_meg, to_mongo
        self.random = random.Random(SEED)  # noqa: S311 - not a secret
        self.stats = ChaosStats()
        self.postgres = _Restartable(servers.postgres.pid)
        self.mongod = _Restartable(servers.mongo.pid)
        self.client = servers.mongo_admin.client()
        self.reader = Reader(servers.mongo_admin.client(), self.stats)
        self.version = 0
        self._log = STACK / "logs" / "tasks.log"
        self.loading = threading.Event()
        self.step = ""
        self.last_load: tuple[str, str, Any] = ("", "", [])

    @contextmanager
    def live_month(self) -> Iterator[None]:
        """Load the month, and run the reader for the block."""
        for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging"):
            self.client.drop_database(name)
        with self.servers.postgres.connect("meg_eu") as connection:
            meg_factory = MegFactory(connection)
            meg_factory.bulk_forms(FORMS)
            meg_factory.institution(id=DEMO_INSTITUTION, is_demo=True)
        self.next_version()
        self.load()
        self.client[LIVE_DATABASE][SUBMISSIONS.name].create_index(READER_INDEX)
        self.reader.start()
        try:
            yield
        finally:
            self.reader.end()
            self.client.close()

    def next_version(self) -> None:
        """Change every form in MEG."""
        self.version += 1
        self.reader.allowed |= {self.version}  # besides the live version, and that of a load that failed

        def change() -> bool:
            try:
                with self.servers.postgres.connect("meg_eu") as connection:
                    connection.execute(
                        "UPDATE megforms_auditform SET name = %s,"
                        " institution_id = CASE WHEN id %% 7 = %s %% 7 THEN %s ELSE 1000000 END",
                        (f"v{self.version}", self.version, DEMO_INSTITUTION),
                    )
            except psycopg.OperationalError:
                return False
            return True

        wait_until(change)

    def attempt(
        self, step: str, run_id: str, *, environment: Mapping[str, str] | None = None, **inputs: Any
    ) -> Attempt:
        """Run one attempt of a step without the proxies, and return its outcome."""
        return self._attempt(
            step, run_id, inputs, {**self._environment(through_proxy=False), **(environment or {})}, Kill()
        )

    def load(
        self,
        run_id: str = "",
        kills: Mapping[str, Kill] | None = None,
        *,
        through_proxy: bool = False,
        has_rival: bool = False,
    ) -> None:
        """Load the month as a DAG run does, with each task retried as often as Airflow would.

        Args:
            run_id: The DAG run; empty for a new one.
            kills: When to kill the first attempt of a step, by step.
            through_proxy: Whether both servers are reached through the proxies.
            has_rival: Whether another load may publish a newer reading at the same time.
        """
        self.stats.loads += 1
        run_id = run_id or f"run-{self.stats.loads}"
        environment, kills = self._environment(through_proxy=through_proxy), dict(kills or {})

        def task(step: str, **inputs: Any) -> tuple[Any, dict[str, Any]]:
            result = "nothing"
            for _ in range(MAX_ATTEMPTS):
                outcome, result, xcoms = self._attempt(step, run_id, inputs, environment, kills.pop(step, Kill()))
                if outcome == "succeeded" or (has_rival and outcome == "skipped" and step == "publish"):
                    return result, xcoms
                assert outcome not in ("failed for good", "skipped"), result
                time.sleep(0.3)
            raise AssertionError(f"{step} did not succeed in {MAX_ATTEMPTS} attempts: {result}")

        stage_tasks, xcoms = task("plan")
        for number, inputs in enumerate(stage_tasks):
            task("stage", **inputs, map_index=number)
        task("publish", load=xcoms["load"])
        self.last_load = run_id, xcoms["load"], stage_tasks

    def _attempt(
        self, step: str, run_id: str, inputs: dict[str, Any], environment: dict[str, str], kill: Kill
    ) -> Attempt:
        self.stats.attempts += 1
        self.step = step
        receiver, sender = _PROCESSES.Pipe(duplex=False)
        args = (step, run_id, inputs, environment, kill, self._log, sender)
        process = _PROCESSES.Process(target=run_attempt, args=args, daemon=True)
        process.start()
        sender.close()
        self.running = process
        try:
            outcome: Attempt = receiver.recv()
        except EOFError:
            process.join()
            if kill.command and process.exitcode == -signal.SIGKILL:
                self.stats.faults["task killed at a command to MongoDB"] += 1
            return "failed", f"the process ended with {process.exitcode}", {}
        process.join()
        return outcome

    def check(self) -> None:
        """Compare the live documents with MEG, and count those that are lost, doubled or of another version."""
        documents = list(self.client[LIVE_DATABASE][SUBMISSIONS.name].find({"region": "eu", "period": MONTH.name}))
        expected_ids = expected(self.version)
        ids = {document["form_id"] for document in documents if document["form_name"] == f"v{self.version}"}
        self.stats.lost += len(expected_ids - ids)
        self.stats.doubled += len(documents) - len(expected_ids & ids)
        self.stats.stale += sum(document["form_name"] != f"v{self.version}" for document in documents)
        assert all(document["submissions"] == 1 for document in documents)
        [ledger_entry] = self.client[LIVE_DATABASE]["bi_loads"].find({"job": SUBMISSIONS.name, "region": "eu"})
        assert ledger_entry["documents"] == len(expected_ids)
        assert ledger_entry["transactions"] == 1, (
            "publish divided the slice, so a reader may see it half-loaded: three of its transactions exceeded "
            f"{MONGOD_PARAMETERS}. Hint: run make chaos while nothing else keeps the machine busy."
        )
        reads = self.stats.reads
        wait_until(lambda: self.stats.reads > reads or not self.reader.is_alive())
        assert self.reader.is_alive(), "the reader has died"

    def assert_whole(self) -> None:
        """Assert that all loads so far left the month complete, and that the reader never saw a torn read."""
        stats = self.stats
        assert (stats.lost, stats.doubled, stats.stale, stats.torn_reads) == (0, 0, 0, []), f"BI_CHAOS_SEED={SEED}"

    def round(self, load: Callable[[], None], disturb: Callable[[], str | None] | None = None) -> None:
        """Load a new version of the month while a fault is injected, then check the result.

        Args:
            load: Loads the version.
            disturb: Injects a fault during the load and returns its name, or None where it came too late.
        """
        self.next_version()
        self.loading.set()
        failures: list[BaseException] = []

        def run_disturb() -> None:
            assert disturb
            try:
                if kind := disturb():
                    self.stats.faults[kind] += 1
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run_disturb) if disturb else None
        if thread:
            thread.start()
        try:
            load()
        finally:
            self.loading.clear()
            if thread:
                thread.join()
        if failures:
            raise failures[0]
        self.check()
        self.reader.allowed = {self.version}

    def wait_a_moment(self, max_seconds: float = 1.0) -> bool:
        """Wait for a random part of a load; returns whether it is still running."""
        time.sleep(self.random.uniform(0, max_seconds))
        return self.loading.is_set()

    def wait_while_reading(self) -> bool:
        """Wait for a random part of the time in which MEG is read; returns whether it still is."""
        return self.wait_a_moment(0.7) and self.step in ("plan", "stage")

    def wait_for_transaction(self) -> bool:
        """Wait until a transaction of a publish is open; returns whether one was."""
        pipeline: list[dict[str, Any]] = [
            {"$currentOp": {"allUsers": True, "idleSessions": True}},
            {"$match": {"transaction.parameters.autocommit": False}},
        ]
        while self.loading.is_set():
            if list(self.client.admin.aggregate(pipeline)):  # a third of the work of serverStatus
                return True
            time.sleep(TRANSACTION_POLL)
        return False

    def _environment(self, *, through_proxy: bool) -> dict[str, str]:
        """Settings, and connections with timeouts of seconds instead of minutes."""
        connections = {name: json.loads(value) for name, value in self.servers.connections({"eu": "meg_eu"}).items()}
        mongo, meg = connections["AIRFLOW_CONN_BI_MONGO"], connections["AIRFLOW_CONN_MEG_EU"]
        meg["extra"] = {"connect_timeout": 2}
        mongo["extra"] |= {"serverSelectionTimeoutMS": 4000, "connectTimeoutMS": 1000, "socketTimeoutMS": 2000}
        if through_proxy:
            meg["port"], mongo["port"] = self.to_meg.port, self.to_mongo.port
            mongo["extra"].pop("replicaSet")  # with which the driver would bypass the proxy
            mongo["extra"]["directConnection"] = True
        settings = {"BI_FORMS_PER_CHUNK": "100", "BI_MAX_MAPPED_TASKS": "3", "MEG_REGIONS": "eu", "BI_AGGREGATE": "1"}
        return {**settings, **{name: json.dumps(value) for name, value in connections.items()}}

    def admin(self) -> psycopg.Connection[Any]:
        """An administrator's connection to MEG, without the proxy."""
        return self.servers.postgres.connect("meg_eu")

    def mongo_is_primary(self) -> bool:
        try:
            return bool(self.client.admin.command("hello")["isWritablePrimary"])
        except PyMongoError:
            return False

    def postgres_answers(self) -> bool:
        try:
            self.admin().close()
        except psycopg.OperationalError:
            return False
        return True


class _Restartable:
    """A server process that can be killed, and started again with the same command and environment."""

    def __init__(self, pid: int) -> None:
        process = psutil.Process(pid)
        self.process = process
        self._command, self._environment, self._user = process.cmdline(), process.environ(), process.username()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait(10)

    def start(self) -> None:
        if "-D" in self._command:  # PostgreSQL's data folder, with its stale lock file
            Path(self._command[self._command.index("-D") + 1], "postmaster.pid").unlink(missing_ok=True)
        account = run_as(self._user if os.geteuid() == 0 and self._user != "root" else None)
        popen = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **account,
        )
        self.process = psutil.Process(popen.pid)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signal_: signal.Signals) -> None:
        """Send a signal to the server first, so that it starts no more processes, then to its children."""
        self.process.send_signal(signal_)
        for child in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal_)
