"""The latency of the reports page over two years of data: of each request, and of its first view with all its files."""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fastapi.testclient import TestClient
from pymongo.collection import Collection

from bench.helpers import REGION, drop_databases, open_meg, publish_slice, stage_slice
from bench.measure import rounds
from bench.results import Ratio, Section
from bi_ops import reports
from bi_ops.airflow.reports_connection import reports_client_settings
from bi_ops.catalog.jobs import JOBS, Job
from bi_ops.catalog.periods import Period
from bi_ops.catalog.slices import Slice
from bi_ops.mongo.store import DagRunRef, Document, Store
from bi_ops.reports.async_reader import AsyncReader
from bi_ops.reports.definitions import load_reports
from bi_ops.reports.indexes import recommended_indexes
from bi_ops.reports.query_execution import Steps
from bi_ops.reports.web import create_app
from dev import demo_meg, embedded_stack

_REGIONS = (REGION, "uk", "au", "us")
_STATIC = Path(reports.__file__).parent / "static"
_UNTIL = datetime(2026, 11, 1, tzinfo=timezone.utc)
_MONTHS = 24
_DEMO_FORMS = 300
_DEMO_MONTHS = 14
_RUN = DagRunRef("bench", "bench")
_MAX_REQUEST_MS = 300
"""The goal for a request's p99, in ms."""
_MAX_DEMO_VIEW_MS = 1_000
_MAX_VIEW_MS = 2_000
"""The goals for the whole first view, in ms: on the demo's data, and on all regions."""
_VIEW_ROUNDS = 50
_FIGURE_PATHS = ("api/clients", f"api/clients/{REGION}/1", "api/regions")
"""The requests of the other views' figures."""
_COLLECTED = "Python's garbage collector stops one request of several for 0.2 s"
_UNCACHED = "it sums the months of every client, as the first request after a server starts does, and one every hour"
_REFERENCE = re.compile(r"""(?:src|href|from|^import) ?=?["'](?:\./)?([a-z_]+\.(?:js|css))["']""", re.MULTILINE)
"""A file that another loads at once; one that a module imports later, as `import("./x.js")`, is none."""

Latency = dict[str, list[float]]
"""The ms of each request, by path."""


def run(servers: embedded_stack.DatabaseServers, deadline: float, forms: int, max_rounds: int) -> Section:
    """Request each route repeatedly: on the demo's data, then on all regions without and with the recommended indexes.

    Args:
        servers: The databases.
        deadline: When to end, by `time.monotonic`.
        forms: The number of forms of each region.
        max_rounds: The maximum number of requests of each route.
    """
    os.environ |= {**servers.connections({}), "MEG_REGIONS": ",".join(_REGIONS)}
    _load_everything(servers, _DEMO_FORMS, _DEMO_MONTHS)
    demo = _measure_uncached(_VIEW_ROUNDS, deadline, view_paths())
    _load_everything(servers, forms, _MONTHS)
    _copy_regions(servers)
    paths = [*view_paths(), *other_paths()]
    first_paths = [*view_paths(), *_FIGURE_PATHS]
    uncached = _measure_uncached(_VIEW_ROUNDS, _share(deadline, 6), first_paths)
    with servers.mongo_admin.client() as client:
        ledger = client[embedded_stack.LIVE_DATABASE]["bi_loads"]
        publish = partial(_publish_again, ledger)
        after_publish = _measure_latency(max_rounds, _share(deadline, 4), paths, before_request=publish)
        without_indexes = _measure_latency(max_rounds, _share(deadline, 3), paths)
        _make_indexes(servers)
        indexed_after_publish = _measure_latency(max_rounds, _share(deadline, 2), paths, before_request=publish)
        with_indexes = _measure_latency(max_rounds, deadline, paths)
    title = f"{len(_REGIONS)} regions with {_MONTHS} months of {forms:,} forms"
    section = _section(title, without_indexes, with_indexes, after_publish, indexed_after_publish)
    section.ratios = [
        Ratio("overview with all its files, demo data / 1 s", _views(demo, _MAX_DEMO_VIEW_MS), max_goal=1),
        Ratio("overview with all its files / 2 s", _views(uncached, _MAX_VIEW_MS), max_goal=1),
        _slowest("with nothing cached, without the indexes", uncached, _UNCACHED),
        _slowest("after a publish, without the indexes", after_publish, _COLLECTED),
        _slowest("after a publish, with the indexes", indexed_after_publish, _COLLECTED),
        _slowest("without the indexes", without_indexes),
        _slowest("with the indexes", with_indexes),
    ]
    section.notes = [
        "In the times of the overview with all its files nothing is cached, and its requests follow each other.",
        f"After a publish: of the newest slice of {REGION} that the route reads.",
        f"With nothing cached, without the indexes, p50 and p99 in ms: {_percentiles(uncached)}.",
    ]
    return section


def view_paths() -> list[str]:
    """The requests of the page's first view: the page, each file that it loads at once, and its data."""
    files, paths = ["page.html"], []
    for file in files:
        text = (_STATIC / file).read_text() if file != "vega.js" else ""
        files += [name for name in _REFERENCE.findall(text) if name not in files]
        paths.append("" if file == "page.html" else file)
    return [*paths, "api/page", "api/overview", "api/freshness"]


def other_paths() -> list[str]:
    """The requests of the other views, with the months of the filters where they take them."""
    months = f"?from_month={_UNTIL.year - 2}-{_UNTIL.month}&to_month={_UNTIL.year}-{_UNTIL.month - 1}"
    return [*_FIGURE_PATHS, "api/clients.csv", *(f"api/reports/{report.name}{months}" for report in load_reports())]


def _section(title: str, *latencies: Latency) -> Section:
    """The table: cached without and with the indexes, then after a publish without and with them."""
    requests = min(len(times) for latency in latencies for times in latency.values())
    states = ("", " with indexes", " after a publish", " with indexes after a publish")
    section = Section(
        f"Reports page: {title}, {requests} requests of each route",
        ("route", *(f"p{share}{state}, ms" for state in states for share in (50, 99))),
    )
    for path in latencies[0]:
        percentiles = (_percentile(latency[path], share) for latency in latencies for share in (50, 99))
        section.rows.append(["/" + path.partition("?")[0], *(f"{percentile:.0f}" for percentile in percentiles)])
    return section


def _slowest(title: str, latency: Latency, explanation: str = "not understood") -> Ratio:
    p99, path = max((_percentile(times, 99), path.partition("?")[0]) for path, times in latency.items())
    name = f"p99 of the slowest request, {title} / 300 ms"
    return Ratio(name, (p99 / _MAX_REQUEST_MS,), max_goal=1, explanation=f"/{path}: {explanation}")


def _percentiles(latency: Latency) -> str:
    """The p50 and p99 of each request that reads MongoDB."""
    return "; ".join(
        f"/{path} {_percentile(times, 50):.0f}, {_percentile(times, 99):.0f}"
        for path, times in latency.items()
        if path.startswith("api/")
    )


def _views(latency: Latency, max_ms: float) -> tuple[float, ...]:
    """The time of the whole first view in each round, its requests one after the other, relative to the goal."""
    return tuple(sum(times) / max_ms for times in zip(*(latency[path] for path in view_paths()), strict=True))


def _load_everything(servers: embedded_stack.DatabaseServers, forms: int, months: int) -> None:
    """Load every slice of one region into empty databases."""
    database = f"bench_reports_{forms}"
    demo = demo_meg.DemoConfig(seed=3, forms=forms, until=_UNTIL.date(), months=_MONTHS)
    demo_meg.seed_database(servers.postgres, database, demo)
    drop_databases(servers)
    with servers.mongo.client() as client, open_meg(servers.postgres, database) as meg:
        store = Store(client, embedded_stack.LIVE_DATABASE)
        for slice_ in (slice_ for job in JOBS for slice_ in _slices(job, months)):
            stage_slice(meg, store, slice_, _RUN)
            publish_slice(store, slice_)


def _slices(job: Job, months: int) -> list[Slice]:
    if job.is_snapshot:
        return [Slice(job, REGION, _UNTIL)]
    last_period = Period.containing(_UNTIL, job.cadence, "UTC").previous()
    periods = last_period.trailing(months) if job.chunked else [last_period]
    return [Slice(job, REGION, period.end, period) for period in periods]


def _copy_regions(servers: embedded_stack.DatabaseServers) -> None:
    """Copy what is loaded of one region to the others: only the region and the ids differ."""
    with servers.mongo_admin.client() as client:
        database = client[embedded_stack.LIVE_DATABASE]
        for name, region in itertools.product([*(job.name for job in JOBS), "bi_loads"], _REGIONS[1:]):
            id_ = {"$replaceOne": {"input": "$_id", "find": REGION, "replacement": region}}
            copies = {"$set": {"_id": id_, "region": region}}
            database[name].aggregate([{"$match": {"region": REGION}}, copies, {"$merge": {"into": name}}])


def _make_indexes(servers: embedded_stack.DatabaseServers) -> None:
    indexes_by_collection: Mapping[str, Any] = json.loads(recommended_indexes())
    with servers.mongo_admin.client() as client:
        for collection, indexes in indexes_by_collection.items():
            for index in indexes:
                client[embedded_stack.LIVE_DATABASE][collection].create_index(
                    [*index["key"].items()], name=index["name"]
                )


def _share(deadline: float, parts: int) -> float:
    """When the first of so many parts of the time until the deadline ends."""
    now = time.monotonic()
    return now + (deadline - now) / parts


def _publish_again(ledger: Collection[Document], path: str) -> None:
    """Say in the ledger that the newest slice that this path reads was published now, with the same documents."""
    reports_by_path = {f"api/reports/{report.name}": report for report in load_reports()}
    report = reports_by_path.get(path.partition("?")[0])
    newest = {"job": report.collection if report else "monthly_submissions", "region": REGION}
    now = datetime.now(timezone.utc)
    ledger.find_one_and_update(newest, {"$set": {"published_at": now}}, sort=[("period", -1)])


def _measure_uncached(max_rounds: int, deadline: float, paths: Sequence[str]) -> Latency:
    """As `_measure_latency`, with a cache that keeps nothing."""
    with patch.object(AsyncReader, "read_cached", _read_uncached):
        return _measure_latency(max_rounds, deadline, paths)


def _measure_latency(
    max_rounds: int,
    deadline: float,
    paths: Sequence[str],
    *,
    before_request: Callable[[str], None] = lambda _path: None,
) -> Latency:
    """The ms of each request, by path, without each path's first one, which plans the query and fills the cache.

    Args:
        max_rounds: The maximum number of requests of each path.
        deadline: When to end, by `time.monotonic`.
        paths: The paths, with their filters.
        before_request: What to do before each request of a path, unmeasured.
    """
    latency: Latency = {path: [] for path in paths}
    with TestClient(create_app(reports_client_settings)) as client:  # one event loop and so one connection
        for _ in rounds(max_rounds + 1, deadline):
            for path, milliseconds in latency.items():
                before_request(path)
                start = time.perf_counter()
                response = client.get(f"/{path}")
                milliseconds.append(1000 * (time.perf_counter() - start))
                response.raise_for_status()
    return {path: milliseconds[1:] for path, milliseconds in latency.items()}


async def _read_uncached(
    reader: AsyncReader, make_steps: Callable[[], Steps[Any]], deadline: float, *_: Any, **__: Any
) -> Any:
    reader.slice_sums.clear()
    return await reader.read(make_steps(), deadline)


def _percentile(milliseconds: list[float], share: int) -> float:
    return statistics.quantiles(milliseconds, n=100, method="inclusive")[share - 1]
