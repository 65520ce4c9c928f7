"""Tests the page while MongoDB does not answer: it times out, and does not block Airflow's API server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bi_ops.reports.async_reader import MAX_QUERIES, REQUEST_SECONDS
from bi_ops.reports.circuit_breaker import RETRY_SECONDS
from dev.mongo import Mongo
from dev.processes import free_port
from tests.reports.page_load import put_under_load
from tests.reports.page_server import page_server

PROMPT_SECONDS = 1.0
"""Far more than a healthy response takes on a busy machine, and far less than the driver's time limits."""


@contextmanager
def frozen(server: Mongo) -> Iterator[None]:
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_frozen_mongodb_api_stays_prompt(mongod: Mongo, tmp_path: Path) -> None:
    """While MongoDB is frozen, no request exceeds its time limit, and other routes answer at once."""
    with page_server(tmp_path, mongod.port) as url:
        assert httpx.get(f"{url}/bi-reports/api/freshness", trust_env=False).status_code == 200
        healthy = put_under_load(url)
        with frozen(mongod):
            first = put_under_load(url)
            second = put_under_load(url)
        print(
            f"\nGET /version, p99: {healthy.p99_ms:.1f} ms healthy, {first.p99_ms:.1f} and {second.p99_ms:.1f} frozen"
        )
        statuses = [response.status_code for response, _ in healthy.pages]
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= MAX_QUERIES
        for load in (first, second):
            load.assert_unavailable()
            assert max(load.version) < PROMPT_SECONDS
        slow = sorted(seconds for _, seconds in first.pages if seconds > PROMPT_SECONDS)
        assert len(slow) <= MAX_QUERIES, "only requests that query MongoDB may wait for it"
        assert not slow or slow[-1] < REQUEST_SECONDS + PROMPT_SECONDS
        assert sum(seconds > PROMPT_SECONDS for _, seconds in second.pages) <= 1, "one request at a time retries"
        deadline = time.monotonic() + 3 * RETRY_SECONDS
        while httpx.get(f"{url}/bi-reports/api/freshness", trust_env=False).status_code != 200:
            assert time.monotonic() < deadline, "the page works again soon after MongoDB does"
            time.sleep(0.2)


def test_black_holed_mongodb_api_stays_prompt(tmp_path: Path) -> None:
    """Requests to a port that accepts connections and never answers fail within seconds, then at once."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as black_hole,
        page_server(tmp_path, black_hole.getsockname()[1]) as url,
    ):
        first = put_under_load(url)
        second = put_under_load(url, min_seconds=1)
    for load in (first, second):
        load.assert_unavailable()
        assert max(load.version) < PROMPT_SECONDS
    assert max(seconds for _, seconds in first.pages) < 2 + 2 * PROMPT_SECONDS, "server selection takes 2 s at most"
    assert max(seconds for _, seconds in second.pages) < PROMPT_SECONDS


def test_mwaa_isolated_web_server_says_so(tmp_path: Path) -> None:
    """On MWAA, a server that never reached MongoDB names the cause and what to do, within seconds and then at once."""
    settings = {"AWS_EXECUTION_ENV": "Amazon_MWAA_331"}
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as black_hole,
        page_server(tmp_path, black_hole.getsockname()[1], **settings) as url,
    ):
        for max_seconds in (2 + 2 * PROMPT_SECONDS, PROMPT_SECONDS):
            began = time.monotonic()
            response = httpx.get(f"{url}/bi-reports/api/page", trust_env=False, timeout=30)
            assert time.monotonic() - began < max_seconds
            assert response.status_code == 503
            detail = response.json()["detail"]
            assert detail.startswith("the reports: Amazon MWAA's web server cannot reach MongoDB."), detail
            assert "docs/mwaa.md" in detail


def test_mwaa_outage_is_not_isolation(mongod: Mongo, tmp_path: Path) -> None:
    """On MWAA too, a MongoDB that answered before and then does not is reported as an outage."""
    settings = {"AWS_EXECUTION_ENV": "Amazon_MWAA_331"}
    with page_server(tmp_path, mongod.port, **settings) as url:
        assert httpx.get(f"{url}/bi-reports/api/freshness", trust_env=False).status_code == 200
        with frozen(mongod):
            response = httpx.get(f"{url}/bi-reports/api/freshness", trust_env=False, timeout=30)
        assert response.status_code == 503
        assert "MWAA" not in response.text


def test_vega_bundle_api_stays_prompt(tmp_path: Path) -> None:
    """Vega's script takes seconds to build, which delays no other request."""

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
        response, version = asyncio.run(run(url))
    assert len(response.text) > 500_000
    assert max(version) < PROMPT_SECONDS
