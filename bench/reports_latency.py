"""The page of reports: how long each chart takes over two years of data, with the suggested indexes and without."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Mapping
from datetime import date, datetime, timezone
from typing import Any

from fastapi.testclient import TestClient

from bench.helpers import REGION, drop_databases, open_meg, publish_slice, stage_slice
from bench.measure import rounds
from bench.results import Ratio, Section
from bi_ops.airflow.reports_connection import reports_target
from bi_ops.catalog.jobs import JOBS, Job
from bi_ops.catalog.periods import Period
from bi_ops.catalog.slices import Slice
from bi_ops.mongo.store import DagRunRef, Store
from bi_ops.reports.definitions import load_reports
from bi_ops.reports.indexes import recommended_indexes
from bi_ops.reports.web import create_app
from dev import demo_meg, embedded_stack

_DATABASE = "bench_reports"
_UNTIL = datetime(2026, 11, 1, tzinfo=timezone.utc)
_MONTHS = 24
_RUN = DagRunRef("bench", "bench")
_LONGEST = 300
"""The goal for a chart's p99, in ms."""


def run(servers: embedded_stack.DatabaseServers, deadline: float, forms: int, max_rounds: int) -> Section:
    """Ask for each chart so many times.

    Args:
        servers: The databases.
        deadline: When the last of it is to end.
        forms: How many forms there are.
        max_rounds: How often each chart is asked for.
    """
    demo = demo_meg.DemoConfig(seed=3, forms=forms, until=date(2026, 11, 1), months=_MONTHS)
    demo_meg.seed_database(servers.postgres, _DATABASE, demo)
    drop_databases(servers)
    _load_everything(servers)
    os.environ |= {**servers.connections({}), "MEG_REGIONS": REGION}
    without = _asked(max_rounds, (time.monotonic() + deadline) / 2)
    _make_indexes(servers)
    with_ = _asked(max_rounds, deadline)
    least = min(len(times) for times in (*without.values(), *with_.values()))
    section = Section(
        f"The page of reports: {_MONTHS} months of {forms:,} forms, {least} requests of each chart",
        ("chart", "p50, ms", "p99, ms", "p50 with indexes, ms", "p99 with indexes, ms"),
    )
    for name, times in without.items():
        figures = (_percentile(of, share) for of in (times, with_[name]) for share in (50, 99))
        section.rows.append([name, *(f"{figure:.0f}" for figure in figures)])
    for title, asked in (("without the indexes", without), ("with the indexes", with_)):
        slowest, p99 = max(((name, _percentile(times, 99)) for name, times in asked.items()), key=lambda pair: pair[1])
        section.figures.append(
            Ratio(f"p99 of the slowest chart, {title} ({slowest}) / 300 ms", (p99 / _LONGEST,), max_goal=1)
        )
    return section


def _load_everything(servers: embedded_stack.DatabaseServers) -> None:
    opened = open_meg(servers.postgres, _DATABASE)
    with servers.mongo.client() as client, opened:
        store = Store(client, embedded_stack.LIVE_DATABASE)
        for of in (of for job in JOBS for of in _slices(job)):
            stage_slice(opened, store, of, _RUN)
            publish_slice(store, of)


def _slices(job: Job) -> list[Slice]:
    if job.is_snapshot:
        return [Slice(job, REGION, _UNTIL)]
    last = Period.containing(_UNTIL, job.cadence, "UTC").previous()
    return [Slice(job, REGION, period.end, period) for period in (last.trailing(_MONTHS) if job.chunked else [last])]


def _make_indexes(servers: embedded_stack.DatabaseServers) -> None:
    wanted: Mapping[str, Any] = json.loads(recommended_indexes())
    with servers.mongo_admin.client() as client:
        for collection, indexes in wanted.items():
            for index in indexes:
                client[embedded_stack.LIVE_DATABASE][collection].create_index(
                    [*index["key"].items()], name=index["name"]
                )


def _asked(most: int, until: float) -> dict[str, list[float]]:
    """The ms of each request, by chart, one chart after the other; the first of each, which plans, is not counted."""
    months = {"first": "2024-11", "last": "2026-10"}
    found: dict[str, list[float]] = {report.name: [] for report in load_reports()}
    with TestClient(create_app(reports_target)) as client:  # one event loop, and so one connection
        for _ in rounds(most + 1, until):
            for name, times in found.items():
                began = time.perf_counter()
                answer = client.get(f"/api/reports/{name}", params=months)
                times.append(1000 * (time.perf_counter() - began))
                answer.raise_for_status()
    return {name: times[1:] for name, times in found.items()}


def _percentile(times: list[float], share: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[share - 1]
