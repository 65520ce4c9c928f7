"""Tests that MEG is read in one read-only snapshot, in batches, within a time limit, and can be cancelled."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import psycopg
import pytest

from bi_ops.errors import SourceQueryError, SourceUnavailableError
from bi_ops.meg.reader import MegReader
from dev.embedded_stack import DatabaseServers
from tests.load_helpers import wait_until
from tests.meg_factory import connect_as_reader


def test_slow_query_times_out(servers: DatabaseServers) -> None:
    """A query over the time limit is cancelled."""
    connect = connect_as_reader(servers, "meg_eu")
    with (
        MegReader("eu", connect, application_name="test", statement_timeout=timedelta(milliseconds=50)) as meg,
        pytest.raises(SourceUnavailableError, match=r"took too long.*within 0.05 s"),
        meg.query("SELECT pg_sleep(30)", {}) as result,
    ):
        list(result.batches)


def test_killed_task_cancels_query(servers: DatabaseServers, meg: MegReader) -> None:
    """A killed task cancels its query on MEG."""
    threading.Timer(0.3, meg.cancel).start()
    began = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="was stopped"), meg.query("SELECT pg_sleep(30)", {}) as result:
        list(result.batches)
    assert time.monotonic() - began < 10
    with servers.postgres.connect() as admin:
        wait_until(lambda: _count_running(admin, "pg_sleep(30)") == 0)


def _count_running(admin: psycopg.Connection[tuple[int]], query: str) -> int:
    row = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()",
        (f"%{query}%",),
    ).fetchone()
    assert row
    return row[0]


def test_meg_query_is_read_only_snapshot(meg: MegReader) -> None:
    """MEG is read in one read-only snapshot under an application name."""
    names = ("transaction_read_only", "transaction_isolation", "application_name", "statement_timeout", "TimeZone")
    sql = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}"
    with meg.query(sql, {}) as result:
        [[row]] = list(result.batches)
    assert row == ("on", "repeatable read", "meg-bi test", "10min", "UTC")


def test_meg_write_is_refused(meg: MegReader) -> None:
    """MEG cannot be written."""
    with (
        pytest.raises(SourceQueryError, match="read-only transaction"),
        meg.query("SELECT lo_create(0)", {}) as result,
    ):
        list(result.batches)


def test_rows_arrive_in_batches(meg: MegReader) -> None:
    """Rows arrive in batches."""
    with meg.query("SELECT n FROM generate_series(1, 4500) AS n", {}, batch_rows=2000) as result:
        assert [len(batch) for batch in result.batches] == [2000, 2000, 500]


def test_meg_down_hides_secrets() -> None:
    """The error of a MEG that is down holds no secret."""

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host="127.0.0.1", port=1, dbname="meg", user="bi", password="hunter2-secret")

    with (
        MegReader("eu", connect, application_name="test") as meg,
        pytest.raises(SourceUnavailableError) as caught,
        meg.query("SELECT 1", {}),
    ):
        pass
    assert "meg_eu" in str(caught.value)
    assert "hunter2" not in str(caught.value)
