"""Tests the page's connection: one per event loop, not in the thread pool, corrected without a restart."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import threading
import time
from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from bi_ops.airflow import reports_connection
from bi_ops.airflow.reports_connection import reports_client_settings
from bi_ops.errors import ReportError, ReportsUnavailableError
from bi_ops.reports import async_reader, web_dependencies
from bi_ops.reports.async_reader import MAX_QUERIES, AsyncReader
from bi_ops.reports.circuit_breaker import RETRY_SECONDS
from bi_ops.reports.query_execution import Query, Steps
from bi_ops.reports.web import create_app
from dev.embedded_stack import DatabaseServers
from dev.processes import free_port

pytestmark = pytest.mark.usefixtures("store")

PATH = "/api/freshness"


@pytest.fixture(autouse=True)
def _connections(servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in servers.connections({}).items():
        monkeypatch.setenv(name, value)


def iter_functions(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for dependency in dependant.dependencies:
        yield from iter_functions(dependency)


def test_page_functions_are_all_asynchronous() -> None:
    """A synchronous route, dependency or error handler would run in the API server's thread pool."""
    app = create_app(reports_client_settings)
    functions = {
        call for route in app.routes if isinstance(route, APIRoute) for call in iter_functions(route.dependant)
    }
    functions |= set(app.exception_handlers.values())
    assert len(functions) > len(app.routes)
    assert [call for call in functions if not inspect.iscoroutinefunction(call)] == []


def test_page_has_client_per_event_loop() -> None:
    """A test client without a context makes an event loop for each request, as servers do for each process."""
    client = TestClient(create_app(reports_client_settings))
    assert [client.get(PATH).status_code for _ in range(3)] == [200] * 3
    with client:
        assert [client.get(PATH).status_code for _ in range(3)] == [200] * 3


def test_page_corrected_host_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a host cannot be reached, the connection is read from Airflow again, so a correction needs no restart."""
    correct = os.environ["AIRFLOW_CONN_BI_MONGO"]
    monkeypatch.setenv("AIRFLOW_CONN_BI_MONGO", json.dumps({**json.loads(correct), "port": free_port()}))
    with TestClient(create_app(reports_client_settings)) as client:
        response = client.get(PATH)
        assert (response.status_code, response.headers["Retry-After"]) == (503, str(RETRY_SECONDS))
        assert "MongoDB cannot be reached" in response.text
        monkeypatch.setenv("AIRFLOW_CONN_BI_MONGO", correct)
        began = time.monotonic()
        response = client.get(PATH)
        assert (response.status_code, response.headers["Retry-After"]) == (503, str(RETRY_SECONDS))
        assert time.monotonic() - began < 1, "MongoDB is known to be down"
        time.sleep(RETRY_SECONDS)
        assert client.get(PATH).status_code == 200


def test_page_hanging_secrets_backend_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Airflow's secrets backend hangs, requests end in time, and all share one look-up."""
    lookups, released = [], threading.Event()
    name = reports_connection.reports_conn_id()

    def hang() -> str:
        lookups.append(threading.current_thread().name)
        released.wait(30)
        return name

    monkeypatch.setattr(reports_connection, "reports_conn_id", hang)
    monkeypatch.setattr(web_dependencies, "REQUEST_SECONDS", 0.3)
    with TestClient(create_app(reports_client_settings)) as client:
        for _ in range(3):
            response = client.get(PATH)
            assert (response.status_code, response.headers["Retry-After"]) == (503, str(RETRY_SECONDS))
            assert "did not return the connection in time" in response.text
        released.set()
        monkeypatch.setattr(web_dependencies, "REQUEST_SECONDS", 10)
        assert client.get(PATH).status_code == 200
    assert len(lookups) == 1
    assert lookups[0].startswith("bi-reports")


def test_page_without_free_slot_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests over the limit are refused, not queued, and a finished request frees a slot."""
    with TestClient(create_app(reports_client_settings)) as client:
        assert client.get(PATH).status_code == 200
        [busy] = [candidate for candidate in async_reader._READERS.values() if candidate._connection]
        monkeypatch.setattr(busy, "_free_slots", 0)
        response = client.get(PATH)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert f"at most {MAX_QUERIES} at once" in response.text
        monkeypatch.setattr(busy, "_free_slots", 1)
        assert [client.get(PATH).status_code for _ in range(2)] == [200, 200]


def test_page_limits_override_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's connection may wait long for a server; the page does not."""
    connection = json.loads(os.environ["AIRFLOW_CONN_BI_MONGO"])
    extra = connection["extra"] if isinstance(connection["extra"], dict) else json.loads(connection["extra"])
    slow = {**extra, "serverselectiontimeoutms": 60_000}
    monkeypatch.setenv("AIRFLOW_CONN_BI_MONGO", json.dumps({**connection, "port": free_port(), "extra": slow}))
    with TestClient(create_app(reports_client_settings)) as client:
        began = time.monotonic()
        assert client.get(PATH).status_code == 503
        assert time.monotonic() - began < 4


def test_equal_requests_are_computed_once() -> None:
    """Requests for one result share its computation and error; one that ends takes nothing from the others."""
    computed: list[str] = []

    def steps(name: str) -> Steps[str]:
        yield Query("institutions", [{"$limit": 1}])
        computed.append(name)
        if name == "invalid":
            raise ReportError("invalid", context="", expected="", actual="", hint="")
        return name

    async def read_together() -> None:
        reader = AsyncReader(reports_client_settings)
        now = time.monotonic()

        def read(name: str, seconds: float = 10) -> asyncio.Task[str]:
            return asyncio.create_task(reader.read_cached(lambda: steps(name), now + seconds, 60, name))

        async def results(*tasks: asyncio.Task[str]) -> list[str | BaseException]:
            return await asyncio.gather(*tasks, return_exceptions=True)

        assert await results(*(read("a") for _ in range(2 * MAX_QUERIES)), read("b")) == ["a"] * 2 * MAX_QUERIES + ["b"]
        errors = await results(read("invalid"), read("invalid"))
        assert [type(error) for error in errors] == [ReportError, ReportError]
        with pytest.raises(ReportError):
            await read("invalid")
        first, late, other = read("c"), read("c", seconds=-1), read("c")
        await asyncio.sleep(0)
        first.cancel()
        cancelled, timed_out, result = await results(first, late, other)
        assert (type(cancelled), type(timed_out)) == (asyncio.CancelledError, ReportsUnavailableError)
        assert result == await read("c") == "c"
        assert reader._computing == {}
        await reader.close()

    asyncio.run(read_together())
    assert sorted(computed) == ["a", "b", "c", "invalid", "invalid"]
