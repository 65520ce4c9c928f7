"""What faults are injected into: both servers, a month that is loaded over and over, and a reader of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from dev.processes import run_as
from tests.chaos.attempt import MONTH, Kill, run_attempt
from tests.chaos.proxy import Proxy
from tests.conftest import stack_folder
from tests.load_helpers import SUBMISSIONS, wait_until
from tests.meg_factory import MegFactory

STACK = stack_folder("chaos")
SEED = int(os.environ.setdefault("BI_CHAOS_SEED", str(int(time.time()))))  # for the processes of `pytest -n` too
PARAMETERS = {"transactionLifetimeLimitSeconds": "1", "enableTestCommands": "1"}
FORMS = 2_450
"""Enough for two batches of writes in one transaction; a seventh of them is missing from each version."""
DEMO = 1_000_001
"""The institution that a form belongs to while it is missing."""
Attempt = tuple[str, Any, dict[str, Any]]
"""How a step ended, what it returned or why it did not, and what it pushed."""
MAX_ATTEMPTS = 7
"""As many as the operators have."""
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["tests.chaos.attempt", "bi_ops.airflow.connections", "bi_ops.load.stage", "bi_ops.load.publish"]
)


@dataclass
class ChaosStats:
    """The faults that were injected, and their effects.

    `freed` counts the tasks that stayed queued after a kill until the scheduler was started again; `remarks` are
    printed below the figures.
    """

    faults: Counter[str] = field(default_factory=Counter)
    freed: int = 0
    attempts: int = 0
    loads: int = 0
    reads: int = 0
    unread: int = 0
    lost: int = 0
    doubled: int = 0
    stale: int = 0
    torn_reads: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def as_property(self, title: str) -> dict[str, Any]:
        """The figures so far, as a test records them for the summary at the end (tests/chaos/conftest.py)."""
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        return {**asdict(self), "faults": dict(self.faults), "title": title, "worker": worker}


def expected(version: int) -> set[int]:
    """The forms of a version: with each version some come, some go, and all others change."""
    return {form for form in range(1, FORMS + 1) if form % 7 != version % 7}


class Reader(threading.Thread):
    """Reads the live slice in snapshots, without pause, and holds each against the versions that may be there."""

    def __init__(self, client: MongoClient[dict[str, Any]], stats: ChaosStats) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._stats = stats
        self._ended = threading.Event()
        self.allowed: set[int] = set()

    def run(self) -> None:
        collection = self._client[LIVE_DATABASE][SUBMISSIONS.name]
        query = {"region": "eu", "period": MONTH.name}
        while not self._ended.is_set():
            allowed = set(self.allowed)
            try:
                with self._client.start_session(snapshot=True) as session:
                    documents = list(collection.find(query, {"form_id": 1, "form_name": 1}, session=session))
            except PyMongoError:
                self._stats.unread += 1  # the server is down, which is the fault and not the pipeline's
                continue
            ids = [document.get("form_id") for document in documents]
            names = {document.get("form_name") for document in documents}
            whole = {f"v{version}": sorted(expected(version)) for version in allowed | self.allowed}
            self._stats.reads += 1
            if len(names) != 1 or whole.get(str(*names)) != sorted(ids):
                self._stats.torn_reads.append(f"{len(documents)} documents, versions {sorted(map(str, names))}")
            self._ended.wait(0.01)

    def end(self) -> None:
        self._ended.set()
        self.join()


class ChaosEnvironment:
    """Both servers, the region eu's MEG in them, and all that can be done to them.

    Args:
        servers: The databases.
        to_meg: A proxy before PostgreSQL.
        to_mongo: A proxy before MongoDB.
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
        """A month is live, and somebody reads it."""
        for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging"):
            self.client.drop_database(name)
        with self.servers.postgres.connect("meg_eu") as connection:
            rows = MegFactory(connection)
            rows.bulk_forms(FORMS)
            rows.institution(id=DEMO, is_demo=True)
        self.next_version()
        self.load()
        self.reader.start()
        try:
            yield
        finally:
            self.reader.end()
            self.client.close()

    def next_version(self) -> None:
        """Change every row of MEG's that the month is about."""
        self.version += 1
        self.reader.allowed |= {self.version}  # beside what was live, or may be after a load that failed

        def change() -> bool:
            try:
                with self.servers.postgres.connect("meg_eu") as connection:
                    connection.execute(
                        "UPDATE megforms_auditform SET name = %s,"
                        " institution_id = CASE WHEN id %% 7 = %s %% 7 THEN %s ELSE 1000000 END",
                        (f"v{self.version}", self.version, DEMO),
                    )
            except psycopg.OperationalError:
                return False
            return True

        wait_until(change)

    def attempt(
        self, step: str, run_id: str, *, environment: Mapping[str, str] | None = None, **inputs: Any
    ) -> Attempt:
        """One attempt of a step, past all servers' proxies: what came of it, as `run_attempt` says."""
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
        """Load the month as a DAG run does, each task tried as often as Airflow retries it.

        Args:
            run_id: The run; a new one for none.
            kills: How the first try of a step dies, by step.
            through_proxy: Whether both servers are reached through the proxies.
            has_rival: Whether another load may publish a newer reading meanwhile.
        """
        self.stats.loads += 1
        run_id = run_id or f"run-{self.stats.loads}"
        environment, kills = self._environment(through_proxy=through_proxy), dict(kills or {})

        def task(step: str, **inputs: Any) -> tuple[Any, dict[str, Any]]:
            result = "nothing"
            for _ in range(MAX_ATTEMPTS):
                outcome, result, pushed = self._attempt(step, run_id, inputs, environment, kills.pop(step, Kill()))
                if outcome == "succeeded" or (has_rival and outcome == "skipped" and step == "publish"):
                    return result, pushed
                assert outcome not in ("failed for good", "skipped"), result
                time.sleep(0.3)
            raise AssertionError(f"{step} did not succeed in {MAX_ATTEMPTS} attempts: {result}")

        chunks, pushed = task("plan")
        for number, task_chunks in enumerate(chunks):
            task("stage", load=pushed["load"], chunks=task_chunks, map_index=number)
        task("publish", load=pushed["load"])
        self.last_load = run_id, pushed["load"], chunks

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
        """Hold what is live against what MEG has now: nothing lost, nothing doubled, nothing of another version."""
        documents = list(self.client[LIVE_DATABASE][SUBMISSIONS.name].find({"region": "eu", "period": MONTH.name}))
        right = expected(self.version)
        ids = {document["form_id"] for document in documents if document["form_name"] == f"v{self.version}"}
        self.stats.lost += len(right - ids)
        self.stats.doubled += len(documents) - len(right & ids)
        self.stats.stale += sum(document["form_name"] != f"v{self.version}" for document in documents)
        assert all(document["submissions"] == 1 for document in documents)
        [row] = self.client[LIVE_DATABASE]["bi_loads"].find({"job": SUBMISSIONS.name, "region": "eu"})
        assert row["documents"] == len(right)
        reads = self.stats.reads
        wait_until(lambda: self.stats.reads > reads or not self.reader.is_alive())
        assert self.reader.is_alive(), "the reader has died"

    def assert_whole(self) -> None:
        """All loads so far left the month whole, and no reader saw it otherwise."""
        stats = self.stats
        assert (stats.lost, stats.doubled, stats.stale, stats.torn_reads) == (0, 0, 0, []), f"BI_CHAOS_SEED={SEED}"

    def round(self, load: Callable[[], None], disturb: Callable[[], str | None] | None = None) -> None:
        """Load a new version of the month while a fault is injected, then check the result.

        Args:
            load: Loads it.
            disturb: Injects a fault at some moment of the load and returns its name; None where it came too late.
        """
        self.next_version()
        self.loading.set()
        failures: list[BaseException] = []

        def disturbing() -> None:
            assert disturb
            try:
                if kind := disturb():
                    self.stats.faults[kind] += 1
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=disturbing) if disturb else None
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
        """Wait for some part of a load; whether it is still going on."""
        time.sleep(self.random.uniform(0, max_seconds))
        return self.loading.is_set()

    def wait_while_reading(self) -> bool:
        """Wait for some part of a load in which MEG is read; whether it still is."""
        return self.wait_a_moment(0.7) and self.step in ("plan", "stage")

    def wait_for_transaction(self) -> bool:
        """Wait until a publish is in the midst of its transaction; whether it came to that."""
        while self.loading.is_set():
            if self.client.admin.command("serverStatus")["transactions"]["currentOpen"]:
                return True
        return False

    def _environment(self, *, through_proxy: bool) -> dict[str, str]:
        """Connections with short timeouts, so that what would take minutes takes seconds."""
        connections = {name: json.loads(value) for name, value in self.servers.connections({"eu": "meg_eu"}).items()}
        mongo, meg = connections["AIRFLOW_CONN_BI_MONGO"], connections["AIRFLOW_CONN_MEG_EU"]
        meg["extra"] = {"connect_timeout": 2}
        mongo["extra"] |= {"serverSelectionTimeoutMS": 4000, "connectTimeoutMS": 1000, "socketTimeoutMS": 2000}
        if through_proxy:
            meg["port"], mongo["port"] = self.to_meg.port, self.to_mongo.port
            mongo["extra"].pop("replicaSet")  # by which the driver would find its way around the proxy
            mongo["extra"]["directConnection"] = True
        settings = {"BI_FORMS_PER_CHUNK": "100", "BI_MAX_MAPPED_TASKS": "3", "MEG_REGIONS": "eu", "BI_AGGREGATE": "1"}
        return {**settings, **{name: json.dumps(value) for name, value in connections.items()}}

    def admin(self) -> psycopg.Connection[Any]:
        """An administrator's connection to MEG's server, past the proxy."""
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
    """A server that can be killed and started again exactly as it was."""

    def __init__(self, pid: int) -> None:
        process = psutil.Process(pid)
        self.process = process
        self._command, self._environment, self._user = process.cmdline(), process.environ(), process.username()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait(10)

    def start(self) -> None:
        if "-D" in self._command:  # PostgreSQL's data folder, with the note of who has it
            Path(self._command[self._command.index("-D") + 1], "postmaster.pid").unlink(missing_ok=True)
        account = run_as(self._user if os.geteuid() == 0 and self._user != "root" else None)
        started = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **account,
        )
        self.process = psutil.Process(started.pid)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signal_: signal.Signals) -> None:
        """To the server first, so that it makes no more processes, then to those that it has."""
        self.process.send_signal(signal_)
        for child in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal_)
