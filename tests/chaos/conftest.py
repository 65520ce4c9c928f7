"""The fixture of the chaos environment, how processes share the faults, and a table of them at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from rich.table import Table
from xdist.scheduler import LoadScopeScheduling

from dev import demo_meg
from dev.console import console
from dev.embedded_stack import databases, stack_lock
from tests.chaos.environment import MONGOD_PARAMETERS, SEED, STACK, ChaosEnvironment
from tests.chaos.proxy import proxies


class FaultScheduling(LoadScopeScheduling):
    """Gives each process of `pytest -n` one kind of fault at a time; one gets all kinds that need Airflow first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.endswith("test_airflow_faults.py") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FaultScheduling:
    return FaultScheduling(config, log)


@pytest.fixture(scope="session")
def chaos() -> Iterator[ChaosEnvironment]:
    with stack_lock(STACK), databases(STACK, MONGOD_PARAMETERS) as servers:
        demo_meg.seed_database(servers.postgres, "meg_eu", None)
        with proxies(servers.postgres.port, servers.mongo.port) as (to_meg, to_mongo):
            environment = ChaosEnvironment(servers, to_meg, to_mongo)
            with environment.live_month():
                yield environment


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    latest = {}  # each test records the totals of its process so far
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, stats in getattr(report, "user_properties", ()):
            if name == "chaos":
                latest[stats["title"], stats["worker"]] = stats
    for title in sorted({title for title, _ in latest}):
        print_stats(title, [stats for (stats_title, _), stats in latest.items() if stats_title == title])


def print_stats(title: str, stats: list[dict[str, Any]]) -> None:
    faults: Counter[str] = sum((Counter(process_stats["faults"]) for process_stats in stats), Counter())
    loads = total(stats, "loads")
    table = Table("fault", "times", title=f"Faults in {title}, injected into {loads} loads (BI_CHAOS_SEED={SEED})")
    for name, count in faults.items():
        table.add_row(name, str(count))
    table.add_section()
    for label, value in (
        ("faults", faults.total()),
        ("tasks that a new scheduler had to free", total(stats, "freed")),
        ("attempts of tasks", total(stats, "attempts")),
        ("snapshot reads", total(stats, "reads")),
        ("reads that found the server down", total(stats, "unread")),
        ("documents lost", total(stats, "lost")),
        ("documents doubled", total(stats, "doubled")),
        ("documents stale", total(stats, "stale")),
        ("half-seen slices", sum(len(process_stats["torn_reads"]) for process_stats in stats)),
    ):
        table.add_row(label, str(value))
    console.print(table)
    for remark in (remark for process_stats in stats for remark in process_stats["remarks"]):
        console.print(remark, highlight=False)


def total(stats: Iterable[dict[str, Any]], name: str) -> int:
    return sum(process_stats[name] for process_stats in stats)
