"""Reads one MEG database: each query in a read-only transaction, its rows streamed through a server-side cursor."""

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

from bi_ops.meg.postgres_error_rules import translate_psycopg_errors

FETCH_SIZE = 2_000
"""The number of rows fetched at once: enough to hide the round trip, few enough to keep memory flat."""

_NETWORK_GRACE = timedelta(seconds=30)
"""How much longer than MEG's statement timeout the reader waits for an answer."""
_MAX_NAME_LENGTH = 63
"""PostgreSQL truncates an application_name to this length (NAMEDATALEN - 1)."""


@dataclass(frozen=True)
class QueryResult:
    """The result of a query, to be read within its `with` block.

    Attributes:
        columns: The names of its columns.
        types: PostgreSQL's names of their types, such as `int8` and `text[]`.
        table_oids: The OID of each column's table; 0 for an expression.
        batches: Its rows, in batches.
        read_at: When its transaction began, by MEG's clock; its snapshot is of this instant or a little later.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    table_oids: tuple[int, ...]
    batches: Iterator[list[tuple[Any, ...]]]
    read_at: datetime


class MegReader:
    """Read-only queries on one region's MEG.

    Args:
        region: The region.
        connect: Opens a connection; called once, at the first query.
        application_name: The slice and the step, shown in `pg_stat_activity.application_name`.
        statement_timeout: The time after which PostgreSQL cancels a statement.
        network_grace: The additional time after which the connection to an unresponsive PostgreSQL is closed.
    """

    def __init__(
        self,
        region: str,
        connect: Callable[[], psycopg.Connection[Any]],
        *,
        application_name: str,
        statement_timeout: timedelta = timedelta(minutes=10),
        network_grace: timedelta = _NETWORK_GRACE,
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
        """Run `sql` in its own read-only transaction, with one snapshot for all rows.

        Raises:
            SourceUnavailableError: MEG cannot be reached, or the query was interrupted.
            ConnectionConfigError: MEG refused the connection.
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
                description = cursor.description or ()
                columns = tuple(column.name for column in description)
                types = tuple(column.type_display for column in description)
                result = cursor.pgresult
                table_oids = tuple(result.ftable(index) if result else 0 for index in range(len(description)))
                yield QueryResult(columns, types, table_oids, self._batches(cursor, batch_rows), read_at)
            finally:
                self._end(connection, cursor)

    def fetch_all(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a small query that cannot have a cursor, such as an EXPLAIN; also read-only.

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
        """Use this statement timeout for the queries in the `with` block."""
        previous, self._statement_timeout = self._statement_timeout, statement_timeout
        try:
            yield
        finally:
            self._statement_timeout = previous

    def clock(self) -> datetime:
        """The present, by MEG's clock.

        Raises:
            As `query` does.
        """
        [(now,)] = self.fetch_all("SELECT now()")
        instant: datetime = now
        return instant

    def cancel(self) -> None:
        """Cancel the running query, from a signal handler or another thread."""
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
        """Begin the transaction with its settings, and return when it began, by MEG's clock.

        All rows of a cursor are read, so it is planned for all rows; JIT compilation would take longer than it saves.
        """
        [(*_, read_at)] = connection.execute(
            "SELECT set_config('application_name', %s, true), set_config('TimeZone', 'UTC', true),"
            " set_config('statement_timeout', %s, true), set_config('cursor_tuple_fraction', '1', true),"
            " set_config('jit', 'off', true), now()",
            (
                f"meg-bi {self._application_name}"[:_MAX_NAME_LENGTH],
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
        """Close the connection if no answer comes: a frozen server enforces no timeout and keeps its TCP connection."""
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
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._connection.fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)
