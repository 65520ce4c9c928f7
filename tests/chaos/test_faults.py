"""A month is loaded while everything fails that can; its reader sees the old month or the new one, whole, always."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from dev import demo_meg
from dev.embedded_stack import databases, stack_lock
from tests.chaos.environment import ChaosEnvironment
from tests.chaos.faults import KINDS, FaultKind
from tests.chaos.proxy import proxies
from tests.conftest import stack_folder

STACK = stack_folder("chaos")
SEED = int(os.environ.setdefault("BI_CHAOS_SEED", str(int(time.time()))))  # for the processes of `pytest -n` too
PARAMETERS = {"transactionLifetimeLimitSeconds": "1", "enableTestCommands": "1"}


@pytest.fixture(scope="module")
def world() -> Iterator[ChaosEnvironment]:
    with stack_lock(STACK), databases(STACK, PARAMETERS) as servers:
        demo_meg.seed_database(servers.postgres, "meg_eu", None)
        with proxies(servers.postgres.port, servers.mongo.port) as (to_meg, to_mongo):
            environment = ChaosEnvironment(servers, to_meg, to_mongo, SEED, STACK / "logs" / "tasks.log")
            with environment.alive():
                yield environment


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_month_survives_fault(
    world: ChaosEnvironment, kind: FaultKind, record_property: Callable[[str, object], None], *, all_faults: bool
) -> None:
    """No document is lost, doubled, stale or seen half way."""
    wanted = kind.many if all_faults else kind.few
    for _ in range(5 + 5 * wanted):
        if world.stats.faults[kind.name] >= wanted:
            break
        kind.inject(world)
    figures = world.stats
    record_property("chaos", figures.as_property("tasks"))
    assert figures.faults[kind.name] >= wanted, f"too few in time; BI_CHAOS_SEED={SEED} does it again"
    assert (figures.lost, figures.doubled, figures.stale, figures.torn_reads) == (0, 0, 0, []), (
        f"BI_CHAOS_SEED={SEED} does it again"
    )
