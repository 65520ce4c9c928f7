"""MEG, read: one read-only transaction for each query, rows streamed in batches through a server-side cursor."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from bi_ops.meg.errors import translate_psycopg_errors

FETCH_SIZE = 2_000
"""Rows fetched at once: enough to hide the round trip, few enough that memory stays flat."""

_GRACE = timedelta(seconds=30)
"""How much longer than MEG's own statement timeout an answer is waited for."""
_NAME_LIMIT = 63
"""PostgreSQL cuts an application_name here (NAMEDATALEN - 1)."""


@dataclass(frozen=True)
class QueryResult:
    """What a query gives, to be read while it is open.

    Attributes:
        columns: The names of its columns.
        types: PostgreSQL's names of their types, such as `int8` and `text[]`.
        table_oids: The table from which each is read, by its OID; 0 for an expression.
        batches: Its rows.
        read_at: When its transaction began, by MEG's clock; its snapshot is of this instant or a little later.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    table_oids: tuple[int, ...]
    batches: Iterator[list[tuple[Any, ...]]]
    read_at: datetime


class MegReader:
    """A region's MEG, read as gently as can be.

    Args:
        region: Its region.
        connect: Opens a connection; called once, at the first query.
        application_name: Who is reading: the slice and the step; shown in `pg_stat_activity.application_name`.
        statement_timeout: After how long PostgreSQL gives a statement up.
        network_grace: After how much longer the connection to a PostgreSQL that says nothing at all is cut.
    """

    def __init__(
        self,
        region: str,
        connect: Callable[[], psycopg.Connection[Any]],
        *,
        application_name: str,
        statement_timeout: timedelta = timedelta(minutes=10),
        network_grace: timedelta = _GRACE,
    ) -> None:
        self._region = region
        self._connect = connect
        self._application_name = application_name
        self._statement_timeout = statement_timeout
        self._network_grace = network_grace
        self._connection: psycopg.Connection[Any] | None = None
        self._cancelled = False

    def __enter__(self) -> MegReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def query(self, sql: str, parameters: Mapping[str, Any], batch_rows: int = FETCH_SIZE) -> Iterator[QueryResult]:
        """Run `sql` in a transaction of its own: read-only, and of one snapshot from the first row to the last.

        Raises:
            SourceUnavailableError: MEG cannot be reached, or gave up on the way.
            ConnectionConfigError: MEG will not have the connection.
            SourceQueryError: MEG refused the query.
            InvalidSourceRowError: MEG could not compute or send a value.
        """
        with self._translate_errors():
            connection = self._get_connection()
            cursor = connection.cursor(name="meg_bi", binary=True)
            try:
                with self._watchdog():
                    read_at = self._begin(connection)
                    cursor.execute(sql, parameters)
                about = cursor.description or ()
                columns, types = (tuple(getattr(each, what) for each in about) for what in ("name", "type_display"))
                wire = cursor.pgresult
                table_oids = tuple(wire.ftable(place) if wire else 0 for place in range(len(about)))
                yield QueryResult(columns, types, table_oids, self._batches(cursor, batch_rows), read_at)
            finally:
                self._end(connection, cursor)

    def fetch_all(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a small query that no cursor can be made for, such as an EXPLAIN; read-only too.

        Raises:
            As `query` does.
        """
        with self._translate_errors():
            return self._fetch_all(sql, parameters)

    def has_timezone(self, name: str) -> bool:
        """Whether MEG's server has this time zone.

        Raises:
            As `query` does.
        """
        with self._translate_errors():
            try:
                self._fetch_all("SELECT now() AT TIME ZONE %(name)s::text", {"name": name})
            except psycopg.errors.InvalidParameterValue:
                return False
            return True

    @contextmanager
    def with_statement_timeout(self, statement_timeout: timedelta) -> Iterator[None]:
        """Give queries this statement timeout until the block ends."""
        before, self._statement_timeout = self._statement_timeout, statement_timeout
        try:
            yield
        finally:
            self._statement_timeout = before

    def clock(self) -> datetime:
        """The present, by MEG's clock.

        Raises:
            As `query` does.
        """
        [(now,)] = self.fetch_all("SELECT now()")
        instant: datetime = now
        return instant

    def cancel(self) -> None:
        """Make MEG stop the query that is running, from a signal handler or another thread."""
        self._cancelled = True
        if self._connection is not None:
            self._connection.cancel_safe(timeout=5)

    def _fetch_all(self, sql: str, parameters: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
        connection = self._get_connection()
        try:
            with self._watchdog():
                self._begin(connection)
                return connection.execute(sql, parameters).fetchall()
        finally:
            self._end(connection)

    def _get_connection(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = self._connect()
            self._connection.read_only = True
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return self._connection

    def _begin(self, connection: psycopg.Connection[Any]) -> datetime:
        """Begin the transaction, with settings that end with it; returns when it began, by MEG's clock.

        All rows of a cursor are read, so it is planned for all; compiling a plan of ours takes longer than running it.
        """
        [(*_, read_at)] = connection.execute(
            "SELECT set_config('application_name', %s, true), set_config('TimeZone', 'UTC', true),"
            " set_config('statement_timeout', %s, true), set_config('cursor_tuple_fraction', '1', true),"
            " set_config('jit', 'off', true), now()",
            (
                f"meg-bi {self._application_name}"[:_NAME_LIMIT],
                str(int(self._statement_timeout.total_seconds() * 1000)),
            ),
        )
        instant: datetime = read_at
        return instant

    def _end(self, connection: psycopg.Connection[Any], cursor: psycopg.ServerCursor[Any] | None = None) -> None:
        if not connection.closed:
            with self._watchdog():
                if cursor is not None:
                    cursor.close()
                connection.rollback()

    def _translate_errors(self) -> AbstractContextManager[None]:
        return translate_psycopg_errors(
            self._region,
            self._application_name,
            statement_timeout=self._statement_timeout,
            cancelled=lambda: self._cancelled,
            connected=lambda: self._connection is not None,
        )

    def _batches(self, cursor: psycopg.ServerCursor[Any], batch_rows: int) -> Iterator[list[tuple[Any, ...]]]:
        while True:
            with self._watchdog():
                batch = cursor.fetchmany(batch_rows)
            if not batch:
                return
            yield batch

    @contextmanager
    def _watchdog(self) -> Iterator[None]:
        """Cut the connection where no answer comes: a frozen server keeps no timeout of its own, and its TCP lives."""
        watchdog = threading.Timer(
            (self._statement_timeout + self._network_grace).total_seconds(), self._shutdown_socket
        )
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def _shutdown_socket(self) -> None:
        if self._connection is not None:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
