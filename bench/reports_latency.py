"""The latency of each chart of the reports page over two years of data, with and without the recommended indexes."""

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
from bi_ops.airflow.reports_connection import reports_client_settings
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
_GOAL_MS = 300
"""The goal for a chart's p99, in ms."""


def run(servers: embedded_stack.DatabaseServers, deadline: float, forms: int, max_rounds: int) -> Section:
    """Request each chart repeatedly, first without and then with the recommended indexes.

    Args:
        servers: The databases.
        deadline: When to end, by `time.monotonic`.
        forms: The number of forms.
        max_rounds: The maximum number of requests of each chart.
    """
    demo = demo_meg.DemoConfig(seed=3, forms=forms, until=date(2026, 11, 1), months=_MONTHS)
    demo_meg.seed_database(servers.postgres, _DATABASE, demo)
    drop_databases(servers)
    _load_everything(servers)
    os.environ |= {**servers.connections({}), "MEG_REGIONS": REGION}
    without_indexes = _measure_latency(max_rounds, (time.monotonic() + deadline) / 2)
    _make_indexes(servers)
    with_indexes = _measure_latency(max_rounds, deadline)
    min_requests = min(len(times) for times in (*without_indexes.values(), *with_indexes.values()))
    section = Section(
        f"Reports page: {_MONTHS} months of {forms:,} forms, {min_requests} requests of each chart",
        ("chart", "p50, ms", "p99, ms", "p50 with indexes, ms", "p99 with indexes, ms"),
    )
    for name, times_without in without_indexes.items():
        percentiles = (_percentile(times, share) for times in (times_without, with_indexes[name]) for share in (50, 99))
        section.rows.append([name, *(f"{percentile:.0f}" for percentile in percentiles)])
    for title, latency in (("without the indexes", without_indexes), ("with the indexes", with_indexes)):
        p99, slowest = max((_percentile(times, 99), name) for name, times in latency.items())
        section.ratios.append(
            Ratio(f"p99 of the slowest chart, {title} ({slowest}) / 300 ms", (p99 / _GOAL_MS,), max_goal=1)
        )
    return section


def _load_everything(servers: embedded_stack.DatabaseServers) -> None:
    meg = open_meg(servers.postgres, _DATABASE)
    with servers.mongo.client() as client, meg:
        store = Store(client, embedded_stack.LIVE_DATABASE)
        for slice_ in (slice_ for job in JOBS for slice_ in _slices(job)):
            stage_slice(meg, store, slice_, _RUN)
            publish_slice(store, slice_)


def _slices(job: Job) -> list[Slice]:
    if job.is_snapshot:
        return [Slice(job, REGION, _UNTIL)]
    last_period = Period.containing(_UNTIL, job.cadence, "UTC").previous()
    periods = last_period.trailing(_MONTHS) if job.chunked else [last_period]
    return [Slice(job, REGION, period.end, period) for period in periods]


def _make_indexes(servers: embedded_stack.DatabaseServers) -> None:
    indexes_by_collection: Mapping[str, Any] = json.loads(recommended_indexes())
    with servers.mongo_admin.client() as client:
        for collection, indexes in indexes_by_collection.items():
            for index in indexes:
                client[embedded_stack.LIVE_DATABASE][collection].create_index(
                    [*index["key"].items()], name=index["name"]
                )


def _measure_latency(max_rounds: int, deadline: float) -> dict[str, list[float]]:
    """The ms of each request, by chart, without each chart's first request, which plans the query."""
    months = {"from_month": "2024-11", "to_month": "2026-10"}
    latency: dict[str, list[float]] = {report.name: [] for report in load_reports()}
    with TestClient(create_app(reports_client_settings)) as client:  # one event loop and so one connection
        for _ in rounds(max_rounds + 1, deadline):
            for name, milliseconds in latency.items():
                start = time.perf_counter()
                response = client.get(f"/api/reports/{name}", params=months)
                milliseconds.append(1000 * (time.perf_counter() - start))
                response.raise_for_status()
    return {name: milliseconds[1:] for name, milliseconds in latency.items()}


def _percentile(milliseconds: list[float], share: int) -> float:
    return statistics.quantiles(milliseconds, n=100, method="inclusive")[share - 1]
