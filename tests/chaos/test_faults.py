"""A month is loaded while everything fails that can; its reader sees the old month or the new one, whole, always."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from rich.table import Table

from dev import demo_meg
from dev.console import console
from dev.embedded_stack import databases, stack_lock
from tests.chaos.environment import ChaosEnvironment, ChaosStats
from tests.chaos.faults import KINDS, FaultKind
from tests.chaos.proxy import proxies
from tests.conftest import ROOT

STACK = ROOT / ".local" / "chaos"
SEED = int(os.environ.get("BI_CHAOS_SEED") or time.time())
PARAMETERS = {"transactionLifetimeLimitSeconds": "1", "enableTestCommands": "1"}


@pytest.fixture(scope="module")
def world() -> Iterator[ChaosEnvironment]:
    with stack_lock(STACK), databases(STACK, PARAMETERS) as servers:
        demo_meg.seed_database(servers.postgres, "meg_eu", None)
        with proxies(servers.postgres.port, servers.mongo.port) as (to_meg, to_mongo):
            made = ChaosEnvironment(servers, to_meg, to_mongo, SEED, STACK / "logs" / "tasks.log")
            with made.alive():
                yield made
        print_figures(made.stats)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_month_survives_fault(world: ChaosEnvironment, kind: FaultKind, *, all_faults: bool) -> None:
    """No document is lost, doubled, stale or seen half way."""
    wanted = kind.many if all_faults else kind.few
    for _ in range(5 + 5 * wanted):
        if world.stats.faults[kind.name] >= wanted:
            break
        kind.inject(world)
    figures = world.stats
    assert figures.faults[kind.name] >= wanted, f"too few in time; BI_CHAOS_SEED={SEED} does it again"
    assert (figures.lost, figures.doubled, figures.stale, figures.torn_reads) == (0, 0, 0, []), (
        f"BI_CHAOS_SEED={SEED} does it again"
    )


def print_figures(figures: ChaosStats) -> None:
    table = Table("fault", "times", title=f"Faults injected into {figures.loads} loads (BI_CHAOS_SEED={SEED})")
    for name, times in figures.faults.items():
        table.add_row(name, str(times))
    table.add_section()
    for name, value in (
        ("faults", figures.faults.total()),
        ("tasks that a new scheduler had to free", figures.freed),
        ("tries of tasks", figures.tries),
        ("snapshot reads", figures.reads),
        ("reads that found the server down", figures.unread),
        ("documents lost", figures.lost),
        ("documents doubled", figures.doubled),
        ("documents stale", figures.stale),
        ("half-seen slices", len(figures.torn_reads)),
    ):
        table.add_row(name, str(value))
    console.print(table)
