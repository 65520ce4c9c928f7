"""The environment for injecting faults, and a table of the faults at the end, from all processes that injected some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from rich.table import Table

from dev import demo_meg
from dev.console import console
from dev.embedded_stack import databases, stack_lock
from tests.chaos.environment import PARAMETERS, SEED, STACK, ChaosEnvironment
from tests.chaos.proxy import proxies


@pytest.fixture(scope="module")
def chaos() -> Iterator[ChaosEnvironment]:
    with stack_lock(STACK), databases(STACK, PARAMETERS) as servers:
        demo_meg.seed_database(servers.postgres, "meg_eu", None)
        with proxies(servers.postgres.port, servers.mongo.port) as (to_meg, to_mongo):
            environment = ChaosEnvironment(servers, to_meg, to_mongo)
            with environment.live_month():
                yield environment


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    latest = {}  # each test records all that its process has done so far
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, figures in getattr(report, "user_properties", ()):
            if name == "chaos":
                latest[figures["title"], figures["worker"]] = figures
    for title in sorted({title for title, _ in latest}):
        print_figures(title, [figures for (of_title, _), figures in latest.items() if of_title == title])


def print_figures(title: str, figures: list[dict[str, Any]]) -> None:
    faults: Counter[str] = sum((Counter(part["faults"]) for part in figures), Counter())
    loads = total(figures, "loads")
    table = Table("fault", "times", title=f"Faults in {title}, injected into {loads} loads (BI_CHAOS_SEED={SEED})")
    for name, times in faults.items():
        table.add_row(name, str(times))
    table.add_section()
    for label, value in (
        ("faults", faults.total()),
        ("tasks that a new scheduler had to free", total(figures, "freed")),
        ("attempts of tasks", total(figures, "attempts")),
        ("snapshot reads", total(figures, "reads")),
        ("reads that found the server down", total(figures, "unread")),
        ("documents lost", total(figures, "lost")),
        ("documents doubled", total(figures, "doubled")),
        ("documents stale", total(figures, "stale")),
        ("half-seen slices", sum(len(part["torn_reads"]) for part in figures)),
    ):
        table.add_row(label, str(value))
    console.print(table)
    for remark in (remark for part in figures for remark in part["remarks"]):
        console.print(remark, highlight=False)


def total(figures: Iterable[dict[str, Any]], name: str) -> int:
    return sum(part[name] for part in figures)
