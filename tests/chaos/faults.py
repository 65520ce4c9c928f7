"""The kinds of faults. Each is injected in a moment of a load, healed before the next, and counted if it took place."""

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
from tests.chaos.environment import ChaosEnvironment
from tests.chaos.proxy import Proxy
from tests.load_helpers import SUBMISSIONS, wait_until

READER = "bi_reader"
_OUT_OF_DISK_SPACE = 14031
_END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault.

    Attributes:
        name: What it is called in the figures.
        few: How often it is injected in `make test`.
        many: How often in `make chaos`.
        inject: Does one load with it; what it is called counts itself in the figures.
    """

    name: str
    few: int
    many: int
    inject: Callable[[ChaosEnvironment], None]


def _disturbed(
    name: str,
    disturb: Callable[[ChaosEnvironment], bool | None],
    *,
    when: Callable[[ChaosEnvironment], bool] = ChaosEnvironment.a_moment,
    through_proxy: bool = False,
) -> Callable[[ChaosEnvironment], None]:
    """A load during which something is done to a server; `disturb` says False where there was nothing to do it to."""

    def inject(world: ChaosEnvironment) -> None:
        def in_a_moment() -> str | None:
            if not when(world):
                return None
            return None if disturb(world) is False else name

        world.round(lambda: world.load(through_proxy=through_proxy), in_a_moment)

    return inject


def kill_at_a_command(world: ChaosEnvironment) -> None:
    """First at each command of a publish in turn, sent and answered; then at any of any step."""
    done = world.stats.faults[_KILLED_AT_COMMAND]
    if done < 24:
        step, kill = "publish", Kill(done // 2 + 1, answered=bool(done % 2))
    else:
        step, commands = world.random.choice([("plan", 4), ("stage", 16), ("publish", 14)])
        kill = Kill(world.random.randint(1, commands), world.random.choice([True, False]))
    world.round(lambda: world.load(kills={step: kill}))


def _kill_task(world: ChaosEnvironment) -> bool:
    alive = world.running.is_alive()
    world.running.kill()
    return alive


def _restart_mongod(world: ChaosEnvironment) -> None:
    world.mongod.kill()
    time.sleep(world.random.uniform(0, 0.5))
    world.mongod.start()
    wait_until(world.mongo_is_primary)


def _step_down(world: ChaosEnvironment) -> None:
    with suppress(PyMongoError):  # it breaks connections, its own too
        world.client.admin.command("replSetStepDown", 1, secondaryCatchUpPeriodSecs=0, force=True)
    wait_until(world.mongo_is_primary)


def _freeze_mongod(world: ChaosEnvironment, seconds: float) -> None:
    world.mongod.freeze()
    time.sleep(seconds)
    world.mongod.thaw()


@contextmanager
def _failing(world: ChaosEnvironment, **data: Any) -> Iterator[None]:
    world.client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        yield
    finally:
        world.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def _refuse_to_stage(world: ChaosEnvironment) -> None:
    """The answer that a server gives which watches its disk, as Atlas does."""
    namespace = f"{LIVE_DATABASE}_staging.{SUBMISSIONS.name}"
    with _failing(world, errorCode=_OUT_OF_DISK_SPACE, failCommands=["insert"], namespace=namespace):
        time.sleep(world.random.uniform(0.2, 0.8))


def _fill_disk(world: ChaosEnvironment) -> None:
    """What a server does that cannot write: no file of its may grow any more, and it ends. Then there is room again."""
    world.mongod.process.rlimit(psutil.RLIMIT_FSIZE, (1, 1))
    wait_until(
        lambda: not world.mongod.process.is_running() or world.mongod.process.status() == psutil.STATUS_ZOMBIE, 20
    )
    world.mongod.kill()
    world.mongod.start()
    wait_until(world.mongo_is_primary)


def _restart_postgres(world: ChaosEnvironment) -> None:
    world.postgres.kill()
    time.sleep(world.random.uniform(0, 0.5))
    world.postgres.start()
    wait_until(world.postgres_answers)


def _freeze_postgres(world: ChaosEnvironment) -> None:
    world.postgres.freeze()
    time.sleep(world.random.uniform(0.5, 2.5))
    world.postgres.thaw()


def _end_connections(world: ChaosEnvironment) -> bool:
    """As soon as there is one: a stage task has none while it is starting."""
    with world.admin() as admin:
        while world.loading.is_set():
            if admin.execute(_END_ALL, (READER,)).fetchall():
                return True
    return False


def _take_all_connections(world: ChaosEnvironment) -> None:
    with world.admin() as admin:
        admin.execute(f"ALTER ROLE {READER} CONNECTION LIMIT 0")
        try:
            admin.execute(_END_ALL, (READER,))
            time.sleep(world.random.uniform(0.2, 1))
        finally:
            admin.execute(f"ALTER ROLE {READER} CONNECTION LIMIT 50")


def _make_meg_wait(world: ChaosEnvironment) -> None:
    """A migration of MEG: every reader of a table waits."""
    with world.admin() as admin, admin.transaction():
        admin.execute("LOCK TABLE megforms_auditsession IN ACCESS EXCLUSIVE MODE")
        time.sleep(world.random.uniform(0.3, 1.2))


def _by_proxy(proxy: str, how: str) -> Callable[[ChaosEnvironment], None]:
    def disturb(world: ChaosEnvironment) -> None:
        wire: Proxy = getattr(world, proxy)
        wire.slow(0.05) if how == "slow" else getattr(wire, how)()
        time.sleep(world.random.uniform(0.1, 0.8 if how == "cut" else 1.5))
        wire.restore()

    return disturb


def _both_at_once(world: ChaosEnvironment, name: str, runs: tuple[str, str]) -> None:
    """Two loads of the same slice; whichever publishes last is whole."""
    failures: list[BaseException] = []

    def other() -> None:
        try:
            world.load(runs[1], has_rival=True)
        except BaseException as error:
            failures.append(error)

    def both() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(world.random.uniform(0, 0.2))
        world.load(runs[0], has_rival=True)
        thread.join()

    world.round(both)
    assert not failures, failures
    assert world.client[f"{LIVE_DATABASE}_staging"][PUBLISH_LOCKS].count_documents({}) == 1
    world.stats.faults[name] += 1


def two_runs_at_once(world: ChaosEnvironment) -> None:
    """Two DAG runs of one Airflow."""
    _both_at_once(world, _TWO_RUNS, (f"twin-{world.version}-a", f"twin-{world.version}-b"))


def two_installations(world: ChaosEnvironment) -> None:
    """Two Airflows on one MongoDB, as while moving from one to the other: their runs have the same names."""
    _both_at_once(world, _TWO_INSTALLATIONS, (f"scheduled-{world.version}", f"scheduled-{world.version}"))


def mark_success(world: ChaosEnvironment) -> None:
    """A stage task is marked success by hand: publish refuses, and the task is then run after all."""

    def load() -> None:
        run_id = f"marked-{world.version}"
        chunks, pushed = world.attempt("plan", run_id)[1:]
        marked = world.random.randrange(len(chunks))
        for number, each in enumerate(chunks):
            if number != marked:
                assert (
                    world.attempt("stage", run_id, load=pushed["load"], chunks=each, map_index=number)[0] == "succeeded"
                )
        outcome, reason, _ = world.attempt("publish", run_id, load=pushed["load"])
        assert (outcome, "has not staged" in reason) == ("failed for good", True), reason
        world.attempt("stage", run_id, load=pushed["load"], chunks=chunks[marked], map_index=marked)
        assert world.attempt("publish", run_id, load=pushed["load"])[0] == "succeeded"

    world.round(load)
    world.stats.faults[_MARKED] += 1


def clear_old_run(world: ChaosEnvironment) -> None:
    """A newer run has loaded the month; then publish, or a chunk, of the older one is cleared."""
    run_id, load_id, chunks = world.last_load

    def load() -> None:
        world.load()
        newer = world.last_load
        for number in (None, world.random.randrange(len(chunks))):
            if number is not None:
                inputs = {"load": load_id, "chunks": chunks[number], "map_index": number}
                assert world.attempt("stage", run_id, **inputs)[0] == "succeeded"
            outcome, reason, _ = world.attempt("publish", run_id, load=load_id)
            assert (outcome, "newer reading" in reason) == ("skipped", True), reason
        world.last_load = newer

    world.round(load)
    world.stats.faults[_STALE_CLEAR] += 1


def gate_off(world: ChaosEnvironment) -> None:
    """Tasks of an old run are cleared while `BI_AGGREGATE` is off."""
    run_id, load_id, chunks = world.last_load
    off = {"BI_AGGREGATE": "0"}

    def load() -> None:
        for step, inputs in (
            ("plan", {}),
            ("stage", {"load": load_id, "chunks": chunks[0], "map_index": 0}),
            ("publish", {"load": load_id}),
        ):
            assert world.attempt(step, run_id, environment=off, **inputs)[0] == "skipped"
        world.load()

    world.round(load)
    world.stats.faults[_GATE_OFF] += 1


amid = ChaosEnvironment.a_transaction

_KILLED_AT_COMMAND = "task killed at a command to MongoDB"
_TWO_RUNS = "two runs of one slice at the same moment"
_TWO_INSTALLATIONS = "two installations load one slice"
_MARKED = "stage task marked success"
_STALE_CLEAR = "older run cleared after a newer one"
_GATE_OFF = "old tasks cleared while the gate is off"

KINDS = (
    FaultKind(_KILLED_AT_COMMAND, 24, 54, kill_at_a_command),
    *(
        FaultKind(name, few, many, _disturbed(name, disturb))
        for name, few, many, disturb in (
            ("task killed at any moment", 3, 45, _kill_task),
            ("mongod killed and started again", 1, 8, _restart_mongod),
            ("mongod stepped down", 1, 8, _step_down),
            ("staging refused, its disk being full", 1, 10, _refuse_to_stage),
            ("mongod ended by a full disk", 1, 4, _fill_disk),
        )
    ),
    *(
        FaultKind(name, 1, many, _disturbed(name, disturb, when=ChaosEnvironment.a_moment_of_reading))
        for name, many, disturb in (
            ("PostgreSQL killed and started again", 6, _restart_postgres),
            ("PostgreSQL frozen", 8, _freeze_postgres),
            ("PostgreSQL's connections ended", 12, _end_connections),
            ("PostgreSQL out of connections", 8, _take_all_connections),
            ("PostgreSQL made to wait for a lock", 8, _make_meg_wait),
        )
    ),
    *(
        FaultKind(f"{name} amid a transaction", 1, many, _disturbed(f"{name} amid a transaction", disturb, when=amid))
        for name, many, disturb in (
            ("task killed", 25, _kill_task),
            ("mongod killed", 6, _restart_mongod),
            ("mongod stepped down", 8, _step_down),
            ("mongod frozen for a second", 10, lambda world: _freeze_mongod(world, 1)),
            ("mongod frozen past the socket's timeout", 5, lambda world: _freeze_mongod(world, 3.5)),
        )
    ),
    *(
        FaultKind(name, 1, 7, _disturbed(name, _by_proxy(proxy, how), when=when, through_proxy=True))
        for server, proxy, when in (
            ("PostgreSQL", "to_meg", ChaosEnvironment.a_moment_of_reading),
            ("MongoDB", "to_mongo", ChaosEnvironment.a_moment),
        )
        for name, how in (
            (f"wire to {server} broken once", "reset_connections"),
            (f"wire to {server} cut for a while", "cut"),
            (f"wire to {server} silent", "silent"),
            (f"wire to {server} slow", "slow"),
        )
    ),
    FaultKind(_TWO_RUNS, 1, 15, two_runs_at_once),
    FaultKind(_TWO_INSTALLATIONS, 1, 8, two_installations),
    FaultKind(_MARKED, 1, 5, mark_success),
    FaultKind(_STALE_CLEAR, 1, 5, clear_old_run),
    FaultKind(_GATE_OFF, 1, 4, gate_off),
)
