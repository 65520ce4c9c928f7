"""Tests the time limits of MEG's roles and our own limit for a MEG that does not answer: each is retried."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psutil
import pytest

from bi_ops.errors import SourceUnavailableError
from bi_ops.meg.reader import MegReader
from dev.embedded_stack import DatabaseServers
from tests.load_helpers import wait_until
from tests.meg_factory import MegFactory, connect_as_reader

MANY_ROWS = "SELECT generate_series(1, 100000)"


@contextmanager
def role_setting(servers: DatabaseServers, name: str, value: str) -> Iterator[None]:
    """Give the reader's role this setting while the block runs."""
    with servers.postgres.connect() as admin:
        admin.execute(f"ALTER ROLE bi_reader SET {name} = '{value}'")
        try:
            yield
        finally:
            admin.execute(f"ALTER ROLE bi_reader RESET {name}")


def read_all(meg: MegReader, sql: str, *, pause: float = 0) -> None:
    with meg.query(sql, {}) as result:
        next(result.batches)
        time.sleep(pause)
        for _ in result.batches:
            pass


def idle_in_transaction(_servers: DatabaseServers, meg: MegReader) -> None:
    """Fetch some rows, and the next ones too late."""
    read_all(meg, MANY_ROWS, pause=2)


def idle_session(_servers: DatabaseServers, meg: MegReader) -> None:
    """Query again after the session was idle for too long."""
    read_all(meg, "SELECT 1")
    time.sleep(2)
    read_all(meg, "SELECT 1")


def long_transaction(_servers: DatabaseServers, meg: MegReader) -> None:
    """Run one query that takes longer than the transaction may."""
    read_all(meg, "SELECT pg_sleep(30)")


def locked_table(servers: DatabaseServers, meg: MegReader) -> None:
    """Read a table while a migration of MEG's holds it."""
    with servers.postgres.connect("meg_eu") as admin, admin.transaction():
        admin.execute("LOCK TABLE megforms_auditsession IN ACCESS EXCLUSIVE MODE")
        read_all(meg, "SELECT count(*) FROM megforms_auditsession")


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("idle_in_transaction_session_timeout", idle_in_transaction),
        ("idle_session_timeout", idle_session),
        ("transaction_timeout", long_transaction),
        ("lock_timeout", locked_table),
    ],
)
def test_role_timeout_is_named_and_retryable(
    servers: DatabaseServers, meg: MegReader, setting: str, read: Callable[[DatabaseServers, MegReader], None]
) -> None:
    """Each time limit of the role is reported by its name, with how to raise it."""
    with (
        role_setting(servers, setting, "1s"),
        pytest.raises(SourceUnavailableError, match="a time limit in MEG ended the query") as caught,
    ):
        read(servers, meg)
    assert setting in caught.value.expected
    assert setting in caught.value.hint
    assert caught.value.retryable


def test_statement_timeout_is_named_and_retryable(servers: DatabaseServers, meg_factory: MegFactory) -> None:
    """A query that waits for a lock longer than the statement timeout is cancelled."""
    meg_factory.bulk_forms(1)
    limit = timedelta(seconds=1)
    with (
        MegReader("eu", connect_as_reader(servers, "meg_eu"), application_name="test", statement_timeout=limit) as meg,
        pytest.raises(SourceUnavailableError, match=r"took too long.*within 1 s \(statement_timeout\)") as caught,
    ):
        locked_table(servers, meg)
    assert caught.value.retryable


def test_statement_timeout_of_role_is_overridden(servers: DatabaseServers, meg: MegReader) -> None:
    """A short limit of the role does not end the pipeline's queries, which set their own."""
    with role_setting(servers, "statement_timeout", "500ms"):
        read_all(meg, "SELECT pg_sleep(1)")


def test_query_cancelled_by_hand_is_retryable(servers: DatabaseServers, meg: MegReader) -> None:
    """An administrator's cancellation is not reported as a timeout."""

    def cancel() -> None:
        with servers.postgres.connect() as admin:
            sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            wait_until(lambda: admin.execute(sql).fetchone() is not None)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(SourceUnavailableError, match="a MEG administrator cancelled the query") as caught:
        read_all(meg, "SELECT pg_sleep(30)")
    canceller.join()
    assert caught.value.retryable


@pytest.fixture
def frozen(servers: DatabaseServers) -> Iterator[Any]:
    """Suspends the PostgreSQL process of a connection until the test ends."""
    stopped: list[psutil.Process] = []

    def freeze(application: str) -> None:
        with servers.postgres.connect() as admin:
            query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
            wait_until(lambda: admin.execute(query, (application,)).fetchone() is not None)
            [pid] = admin.execute(query, (application,)).fetchone() or [0]
        stopped.append(psutil.Process(pid))
        stopped[0].suspend()

    yield freeze
    for process in stopped:
        process.resume()


def test_silent_meg_times_out(servers: DatabaseServers, frozen: Any) -> None:
    """A frozen server ignores the statement timeout, and its kernel keeps acknowledging packets."""
    connect = connect_as_reader(servers, "meg_eu")
    short = timedelta(seconds=1)
    began = time.monotonic()
    with MegReader("eu", connect, application_name="frozen", statement_timeout=short, network_grace=short) as meg:
        threading.Timer(0.3, lambda: frozen("meg-bi frozen")).start()
        with pytest.raises(SourceUnavailableError), meg.query("SELECT pg_sleep(0.9)", {}) as result:
            list(result.batches)
    assert time.monotonic() - began < 10


def test_silent_meg_times_out_at_end(servers: DatabaseServers, frozen: Any) -> None:
    """A MEG that stops answering after the last row times out."""
    short = timedelta(seconds=1)
    began = time.monotonic()
    with MegReader(
        "eu",
        connect_as_reader(servers, "meg_eu"),
        application_name="late",
        statement_timeout=short,
        network_grace=short,
    ) as meg:

        def read_all() -> None:
            with meg.query("SELECT 1", {}) as result:
                list(result.batches)
                frozen("meg-bi late")

        with pytest.raises(SourceUnavailableError):
            read_all()
        assert time.monotonic() - began < 10
