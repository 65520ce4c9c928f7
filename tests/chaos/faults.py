"""The kinds of faults: each is injected during a load, ended before the next load, and counted if it took place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
from pymongo.errors import PyMongoError

from bi_ops.mongo.store import PUBLISH_LOCKS
from dev.embedded_stack import LIVE_DATABASE
from tests.chaos.attempt import Kill
from tests.chaos.environment import SEED, ChaosEnvironment
from tests.chaos.proxy import Proxy
from tests.load_helpers import SUBMISSIONS, wait_until

READER = "bi_reader"
_OUT_OF_DISK_SPACE = 14031
_END_CONNECTIONS_SQL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault.

    Attributes:
        name: Its name in the table.
        few: How often `pytest tests/chaos` injects it.
        many: How often `make chaos` injects it.
        inject: Runs one load with the fault, and counts the fault if it took place.
    """

    name: str
    few: int
    many: int
    inject: Callable[[ChaosEnvironment], None]

    def inject_all(self, chaos: ChaosEnvironment, *, all_faults: bool) -> None:
        """Repeat the load until the fault has taken place often enough."""
        chaos.random.seed(f"{SEED} {self.name}")  # whichever process injects it
        goal = self.many if all_faults else self.few
        for _ in range(5 + 5 * goal):
            if chaos.stats.faults[self.name] >= goal:
                return
            self.inject(chaos)
        raise AssertionError(f"{self.name}: {chaos.stats.faults[self.name]} of {goal} faults; BI_CHAOS_SEED={SEED}")


def _with_disturbance(
    name: str,
    disturb: Callable[[ChaosEnvironment], bool | None],
    *,
    when: Callable[[ChaosEnvironment], bool] = ChaosEnvironment.wait_a_moment,
    through_proxy: bool = False,
) -> Callable[[ChaosEnvironment], None]:
    """A load during which `disturb` is called; it returns False where it had no effect."""

    def inject(chaos: ChaosEnvironment) -> None:
        def disturb_when_due() -> str | None:
            if not when(chaos):
                return None
            return None if disturb(chaos) is False else name

        chaos.round(lambda: chaos.load(through_proxy=through_proxy), disturb_when_due)

    return inject


def kill_at_command(chaos: ChaosEnvironment) -> None:
    """Kill a task at each command of a publish in turn, sent and answered; then at random commands of all steps."""
    count = chaos.stats.faults[_KILLED_AT_COMMAND]
    if count < 24:
        step, kill = "publish", Kill(count // 2 + 1, answered=bool(count % 2))
    else:
        step, commands = chaos.random.choice([("plan", 4), ("stage", 16), ("publish", 14)])
        kill = Kill(chaos.random.randint(1, commands), chaos.random.choice([True, False]))
    chaos.round(lambda: chaos.load(kills={step: kill}))


def _kill_task(chaos: ChaosEnvironment) -> bool:
    alive = chaos.running.is_alive()
    chaos.running.kill()
    return alive


def _restart_mongod(chaos: ChaosEnvironment) -> None:
    chaos.mongod.kill()
    time.sleep(chaos.random.uniform(0, 0.5))
    chaos.mongod.start()
    wait_until(chaos.mongo_is_primary)


def _step_down(chaos: ChaosEnvironment) -> None:
    with suppress(PyMongoError):  # it closes all connections, including its own
        chaos.client.admin.command("replSetStepDown", 1, secondaryCatchUpPeriodSecs=0, force=True)
    wait_until(chaos.mongo_is_primary)


def _freeze_mongod(chaos: ChaosEnvironment, seconds: float) -> None:
    chaos.mongod.freeze()
    time.sleep(seconds)
    chaos.mongod.thaw()


@contextmanager
def _fail_commands(chaos: ChaosEnvironment, **data: Any) -> Iterator[None]:
    chaos.client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        yield
    finally:
        chaos.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def _refuse_to_stage(chaos: ChaosEnvironment) -> None:
    """Have the server refuse writes for lack of disk space, as Atlas does."""
    namespace = f"{LIVE_DATABASE}_staging.{SUBMISSIONS.name}"
    with _fail_commands(chaos, errorCode=_OUT_OF_DISK_SPACE, failCommands=["insert"], namespace=namespace):
        time.sleep(chaos.random.uniform(0.2, 0.8))


def _fill_disk(chaos: ChaosEnvironment) -> None:
    """Let no file of the server grow, so that it ends as with a full disk, then start it without that limit."""
    chaos.mongod.process.rlimit(psutil.RLIMIT_FSIZE, (1, 1))
    wait_until(
        lambda: not chaos.mongod.process.is_running() or chaos.mongod.process.status() == psutil.STATUS_ZOMBIE, 20
    )
    chaos.mongod.kill()
    chaos.mongod.start()
    wait_until(chaos.mongo_is_primary)


def _restart_postgres(chaos: ChaosEnvironment) -> None:
    chaos.postgres.kill()
    time.sleep(chaos.random.uniform(0, 0.5))
    chaos.postgres.start()
    wait_until(chaos.postgres_answers)


def _freeze_postgres(chaos: ChaosEnvironment) -> None:
    chaos.postgres.freeze()
    time.sleep(chaos.random.uniform(0.5, 2.5))
    chaos.postgres.thaw()


def _end_connections(chaos: ChaosEnvironment) -> bool:
    """End the connections as soon as there are any: a stage task has none while it starts."""
    with chaos.admin() as admin:
        while chaos.loading.is_set():
            if admin.execute(_END_CONNECTIONS_SQL, (READER,)).fetchall():
                return True
    return False


def _take_all_connections(chaos: ChaosEnvironment) -> None:
    with chaos.admin() as admin:
        admin.execute(f"ALTER ROLE {READER} CONNECTION LIMIT 0")
        try:
            admin.execute(_END_CONNECTIONS_SQL, (READER,))
            time.sleep(chaos.random.uniform(0.2, 1))
        finally:
            admin.execute(f"ALTER ROLE {READER} CONNECTION LIMIT 50")


def _make_meg_wait(chaos: ChaosEnvironment) -> None:
    """Lock a table as a migration of MEG does, so that its readers wait."""
    with chaos.admin() as admin, admin.transaction():
        admin.execute("LOCK TABLE megforms_auditsession IN ACCESS EXCLUSIVE MODE")
        time.sleep(chaos.random.uniform(0.3, 1.2))


def _disturb_proxy(proxy: str, fault: str) -> Callable[[ChaosEnvironment], None]:
    def disturb(chaos: ChaosEnvironment) -> None:
        target: Proxy = getattr(chaos, proxy)
        target.slow(0.05) if fault == "slow" else getattr(target, fault)()
        time.sleep(chaos.random.uniform(0.1, 0.8 if fault == "cut" else 1.5))
        target.restore()

    return disturb


def _load_twice(chaos: ChaosEnvironment, name: str, runs: tuple[str, str]) -> None:
    """Run two loads of the same slice at once; the one that publishes last must be whole."""
    failures: list[BaseException] = []

    def load_second() -> None:
        try:
            chaos.load(runs[1], has_rival=True)
        except BaseException as error:
            failures.append(error)

    def load_both() -> None:
        thread = threading.Thread(target=load_second)
        thread.start()
        time.sleep(chaos.random.uniform(0, 0.2))
        chaos.load(runs[0], has_rival=True)
        thread.join()

    chaos.round(load_both)
    assert not failures, failures
    assert chaos.client[f"{LIVE_DATABASE}_staging"][PUBLISH_LOCKS].count_documents({}) == 1
    chaos.stats.faults[name] += 1


def two_runs_at_once(chaos: ChaosEnvironment) -> None:
    """Run two DAG runs of one Airflow at once."""
    _load_twice(chaos, _TWO_RUNS, (f"twin-{chaos.version}-a", f"twin-{chaos.version}-b"))


def two_installations(chaos: ChaosEnvironment) -> None:
    """Run two Airflows on one MongoDB at once, as during a move: their DAG runs have the same ids."""
    _load_twice(chaos, _TWO_INSTALLATIONS, (f"scheduled-{chaos.version}", f"scheduled-{chaos.version}"))


def mark_success(chaos: ChaosEnvironment) -> None:
    """Mark a stage task as success by hand: publish refuses until the task is run."""

    def load() -> None:
        run_id = f"marked-{chaos.version}"
        stage_tasks, xcoms = chaos.attempt("plan", run_id)[1:]
        marked_task = chaos.random.randrange(len(stage_tasks))
        for number, inputs in enumerate(stage_tasks):
            if number != marked_task:
                assert chaos.attempt("stage", run_id, **inputs, map_index=number)[0] == "succeeded"
        outcome, reason, _ = chaos.attempt("publish", run_id, load=xcoms["load"])
        assert (outcome, "stage tasks have not completed" in reason) == ("failed for good", True), reason
        chaos.attempt("stage", run_id, **stage_tasks[marked_task], map_index=marked_task)
        assert chaos.attempt("publish", run_id, load=xcoms["load"])[0] == "succeeded"

    chaos.round(load)
    chaos.stats.faults[_MARKED_SUCCESS] += 1


def clear_old_run(chaos: ChaosEnvironment) -> None:
    """Load the month with a newer run, then clear the older run's publish, or a chunk of it."""
    run_id, load_id, stage_tasks = chaos.last_load

    def load() -> None:
        chaos.load()
        newer_load = chaos.last_load
        for number in (None, chaos.random.randrange(len(stage_tasks))):
            if number is not None:
                inputs = {**stage_tasks[number], "map_index": number}
                assert chaos.attempt("stage", run_id, **inputs)[0] == "succeeded"
            outcome, reason, _ = chaos.attempt("publish", run_id, load=load_id)
            assert (outcome, "newer reading" in reason) == ("skipped", True), reason
        chaos.last_load = newer_load

    chaos.round(load)
    chaos.stats.faults[_STALE_CLEAR] += 1


def gate_off(chaos: ChaosEnvironment) -> None:
    """Clear tasks of an old run while `BI_AGGREGATE` is off."""
    run_id, load_id, stage_tasks = chaos.last_load
    gate_off_env = {"BI_AGGREGATE": "0"}

    def load() -> None:
        for step, inputs in (
            ("plan", {}),
            ("stage", {**stage_tasks[0], "map_index": 0}),
            ("publish", {"load": load_id}),
        ):
            assert chaos.attempt(step, run_id, environment=gate_off_env, **inputs)[0] == "skipped"
        chaos.load()

    chaos.round(load)
    chaos.stats.faults[_GATE_OFF] += 1


_KILLED_AMID = "task killed amid a transaction"
_KILLED_AT_COMMAND = "task killed at a command to MongoDB"
_TWO_RUNS = "two runs of one slice at the same moment"
_TWO_INSTALLATIONS = "two installations load one slice"
_MARKED_SUCCESS = "stage task marked success"
_STALE_CLEAR = "older run cleared after a newer one"
_GATE_OFF = "old tasks cleared while the gate is off"

TASK_FAULTS = (
    FaultKind(_KILLED_AT_COMMAND, 24, 54, kill_at_command),
    FaultKind("task killed at any moment", 3, 45, _with_disturbance("task killed at any moment", _kill_task)),
    FaultKind(
        _KILLED_AMID, 1, 25, _with_disturbance(_KILLED_AMID, _kill_task, when=ChaosEnvironment.wait_for_transaction)
    ),
)
SERVER_FAULTS = (
    *(
        FaultKind(name, 1, many, _with_disturbance(name, disturb))
        for name, many, disturb in (
            ("mongod killed and started again", 8, _restart_mongod),
            ("mongod stepped down", 8, _step_down),
            ("staging refused, its disk being full", 10, _refuse_to_stage),
            ("mongod ended by a full disk", 4, _fill_disk),
        )
    ),
    *(
        FaultKind(name, 1, many, _with_disturbance(name, disturb, when=ChaosEnvironment.wait_while_reading))
        for name, many, disturb in (
            ("PostgreSQL killed and started again", 6, _restart_postgres),
            ("PostgreSQL frozen", 8, _freeze_postgres),
            ("PostgreSQL's connections ended", 12, _end_connections),
            ("PostgreSQL out of connections", 8, _take_all_connections),
            ("PostgreSQL made to wait for a lock", 8, _make_meg_wait),
        )
    ),
    *(
        FaultKind(name, 1, many, _with_disturbance(name, disturb, when=ChaosEnvironment.wait_for_transaction))
        for name, many, disturb in (
            ("mongod killed amid a transaction", 6, _restart_mongod),
            ("mongod stepped down amid a transaction", 8, _step_down),
            ("mongod frozen for a second amid a transaction", 10, lambda chaos: _freeze_mongod(chaos, 1)),
            ("mongod frozen past the socket's timeout amid a transaction", 5, lambda chaos: _freeze_mongod(chaos, 3.5)),
        )
    ),
    *(
        FaultKind(name, 1, 7, _with_disturbance(name, _disturb_proxy(proxy, fault), when=when, through_proxy=True))
        for server, proxy, when in (
            ("PostgreSQL", "to_meg", ChaosEnvironment.wait_while_reading),
            ("MongoDB", "to_mongo", ChaosEnvironment.wait_a_moment),
        )
        for name, fault in (
            (f"wire to {server} broken once", "reset_connections"),
            (f"wire to {server} cut for a while", "cut"),
            (f"wire to {server} silent", "silent"),
            (f"wire to {server} slow", "slow"),
        )
    ),
)
RUN_FAULTS = (
    FaultKind(_TWO_RUNS, 1, 15, two_runs_at_once),
    FaultKind(_TWO_INSTALLATIONS, 1, 8, two_installations),
    FaultKind(_MARKED_SUCCESS, 1, 5, mark_success),
    FaultKind(_STALE_CLEAR, 1, 5, clear_old_run),
    FaultKind(_GATE_OFF, 1, 4, gate_off),
)
