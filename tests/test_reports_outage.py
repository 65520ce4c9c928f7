"""The page while MongoDB does not answer: it gives up in time, and holds up nothing else of Airflow's API server."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from bi_ops.reports.breaker import RETRY_SECONDS
from bi_ops.reports.definitions import reports
from bi_ops.reports.reader import MAX_QUERIES, REQUEST_SECONDS
from dev import mongo
from dev.mongo import Mongo
from dev.processes import Service, free_port, stop
from tests.conftest import ROOT

REQUESTS = 60
"""None of them for what the page keeps for a while, which is there without MongoDB too."""
PATHS = ["api/freshness", *(f"api/reports/{report.name}" for report in reports())]
PROMPT_SECONDS = 1.0
"""Far more than a healthy answer takes on a busy machine, and far less than any time limit of MongoDB's driver."""


@dataclass
class Load:
    """What was answered under load.

    Attributes:
        answers: Those of the page, with the seconds that each took.
        version: The seconds that each request of the synchronous route took.
    """

    answers: list[tuple[httpx.Response, float]] = field(default_factory=list)
    version: list[float] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        return 1000 * statistics.quantiles(self.version, n=100, method="inclusive")[98]

    def assert_unavailable(self) -> None:
        """Every request of the page was told to come back later."""
        for answer, _ in self.answers:
            assert answer.status_code == 503, answer.text[:300]
            assert int(answer.headers["Retry-After"]) >= 1


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    """A MongoDB of its own, since it is frozen."""
    if os.environ.get(mongo.EXTERNAL):
        pytest.skip("the tests' MongoDB is not of this machine, so it cannot be frozen")
    with mongo.running(tmp_path_factory.mktemp("mongod"), "secret") as server:
        yield server


@contextmanager
def frozen(server: Mongo) -> Iterator[None]:
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextmanager
def page_server(folder: Path, port_of_mongo: int) -> Iterator[str]:
    """A server with the page and a synchronous route; gives its address."""
    connection = {
        "conn_type": "mongo",
        "host": "127.0.0.1",
        "port": port_of_mongo,
        "login": mongo.ADMIN,
        "password": "secret",
        "schema": "bi",
        "extra": {"authSource": "admin"},
    }
    environment = {
        **os.environ,
        "AIRFLOW_CONN_BI_REPORTS": json.dumps(connection),
        "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}",
    }
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.reports_server", str(port)]
    service = Service("the page's server", command, log=folder / "server.log", environment=environment)

    def is_up() -> bool:
        try:
            return httpx.get(f"{url}/version", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        service.wait_until(is_up, seconds=60)
        yield url
    finally:
        stop(service)


def put_under_load(url: str, *, min_seconds: float = 3) -> Load:
    """Request the page many times at once, and the synchronous route all the while."""

    async def request_page(client: httpx.AsyncClient, path: str, load: Load) -> None:
        began = time.monotonic()
        answer = await client.get(f"/bi-reports/{path}")
        load.answers.append((answer, time.monotonic() - began))

    async def run() -> Load:
        load, began = Load(), time.monotonic()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=90, limits=limits, trust_env=False) as client:
            await client.get("/version")
            paths = itertools.islice(itertools.cycle(PATHS), REQUESTS)
            page = [asyncio.create_task(request_page(client, path, load)) for path in paths]
            while time.monotonic() - began < min_seconds or not all(task.done() for task in page):
                started = time.monotonic()
                (await client.get("/version")).raise_for_status()
                load.version.append(time.monotonic() - started)
                await asyncio.sleep(0.01)
            await asyncio.gather(*page)
        return load

    return asyncio.run(run())


def test_frozen_mongodb_api_stays_prompt(mongod: Mongo, tmp_path: Path) -> None:
    """While MongoDB is frozen no request waits for it beyond its limit, and other routes answer at once."""
    with page_server(tmp_path, mongod.port) as url:
        assert httpx.get(f"{url}/bi-reports/api/freshness", trust_env=False).status_code == 200
        healthy = put_under_load(url)
        with frozen(mongod):
            first = put_under_load(url)
            again = put_under_load(url)
        print(f"\nGET /version, p99: {healthy.p99_ms:.1f} ms healthy, {first.p99_ms:.1f} and {again.p99_ms:.1f} frozen")
        statuses = [answer.status_code for answer, _ in healthy.answers]
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= MAX_QUERIES
        for load in (first, again):
            load.assert_unavailable()
            assert max(load.version) < PROMPT_SECONDS
        slow = sorted(seconds for _, seconds in first.answers if seconds > PROMPT_SECONDS)
        assert len(slow) <= MAX_QUERIES, "only those that asked MongoDB may wait for it"
        assert not slow or slow[-1] < REQUEST_SECONDS + PROMPT_SECONDS
        assert sum(seconds > PROMPT_SECONDS for _, seconds in again.answers) <= 1, "one at a time tries again"
        deadline = time.monotonic() + 3 * RETRY_SECONDS
        while httpx.get(f"{url}/bi-reports/api/freshness", trust_env=False).status_code != 200:
            assert time.monotonic() < deadline, "the page works again soon after MongoDB does"
            time.sleep(0.2)


def test_black_holed_mongodb_api_stays_prompt(tmp_path: Path) -> None:
    """A port that takes connections and never answers is given up within seconds, then at once."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as black_hole,
        page_server(tmp_path, black_hole.getsockname()[1]) as url,
    ):
        first = put_under_load(url)
        again = put_under_load(url, min_seconds=1)
    for load in (first, again):
        load.assert_unavailable()
        assert max(load.version) < PROMPT_SECONDS
    assert max(seconds for _, seconds in first.answers) < 2 + 2 * PROMPT_SECONDS, "server selection takes 2 s at most"
    assert max(seconds for _, seconds in again.answers) < PROMPT_SECONDS


def test_vega_bundle_first_request_api_stays_prompt(tmp_path: Path) -> None:
    """Vega's script takes seconds to make, which no other request notices."""

    async def run(url: str) -> tuple[httpx.Response, list[float]]:
        version: list[float] = []
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            bundle = asyncio.create_task(client.get("/bi-reports/vega.js"))
            while not bundle.done():
                began = time.monotonic()
                await client.get("/version")
                version.append(time.monotonic() - began)
                await asyncio.sleep(0.005)
            return await bundle, version

    with page_server(tmp_path, free_port()) as url:
        answer, version = asyncio.run(run(url))
    assert len(answer.text) > 500_000
    assert max(version) < PROMPT_SECONDS
