"""Puts the reports page under load, and measures a synchronous route at the same time."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from bi_ops.reports.definitions import load_reports

PAGE_REQUESTS = 60
PAGE_PATHS = ["api/freshness", *(f"api/reports/{report.name}" for report in load_reports())]
"""The page caches none of these responses, so each request needs MongoDB."""


@dataclass
class LoadResult:
    """The responses under load.

    Attributes:
        pages: The page's responses, with the seconds that each took.
        version: The seconds that each request of the synchronous route took.
    """

    pages: list[tuple[httpx.Response, float]] = field(default_factory=list)
    version: list[float] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        return 1000 * statistics.quantiles(self.version, n=100, method="inclusive")[98]

    def assert_unavailable(self) -> None:
        """Assert that every request of the page got status 503 with the time after which to retry."""
        for response, _ in self.pages:
            assert response.status_code == 503, response.text[:300]
            assert int(response.headers["Retry-After"]) >= 1


def put_under_load(
    url: str,
    *,
    version_path: str = "/version",
    headers: Mapping[str, str] | None = None,
    min_seconds: float = 3,
) -> LoadResult:
    """Request the page many times at once, and the synchronous route until all responses have arrived.

    Args:
        url: The server.
        version_path: The synchronous route.
        headers: The headers of every request.
        min_seconds: The minimum time for which the synchronous route is requested.
    """

    async def request_page(client: httpx.AsyncClient, path: str, load: LoadResult) -> None:
        start = time.monotonic()
        response = await client.get(f"/bi-reports/{path}")
        load.pages.append((response, time.monotonic() - start))

    async def run() -> LoadResult:
        load, start = LoadResult(), time.monotonic()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=url, timeout=90, limits=limits, headers=headers, trust_env=False
        ) as client:
            await client.get(version_path)
            paths = itertools.islice(itertools.cycle(PAGE_PATHS), PAGE_REQUESTS)
            pages = [asyncio.create_task(request_page(client, path, load)) for path in paths]
            while time.monotonic() - start < min_seconds or not all(page.done() for page in pages):
                request_start = time.monotonic()
                (await client.get(version_path)).raise_for_status()
                load.version.append(time.monotonic() - request_start)
                await asyncio.sleep(0.01)
            await asyncio.gather(*pages)
        return load

    return asyncio.run(run())
