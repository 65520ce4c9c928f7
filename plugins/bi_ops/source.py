"""MEG, read: one read-only transaction for each query, rows streamed in batches through a server-side cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg

from bi_ops.errors import SourceQueryError, SourceUnavailableError

BATCH_ROWS = 2_000
"""Rows fetched at once: enough to hide the round trip, few enough that memory stays flat."""

_NAME_LIMIT = 63
"""PostgreSQL cuts an application_name here (NAMEDATALEN - 1)."""


@dataclass(frozen=True)
class Result:
    """What a query gives: the names of its columns, and its rows in batches, to be read while it is open."""

    columns: tuple[str, ...]
    batches: Iterator[list[tuple[Any, ...]]]


class Meg:
    """A region's MEG, read as gently as can be.

    Args:
        region: Its region.
        connect: Opens a connection; called once, at the first query.
        reader: Who is reading, shown in `pg_stat_activity.application_name`.
        statement_timeout: After how long PostgreSQL gives a statement up.
    """

    def __init__(
        self,
        region: str,
        connect: Callable[[], psycopg.Connection[Any]],
        *,
        reader: str,
        statement_timeout: timedelta = timedelta(minutes=10),
    ) -> None:
        self._region = region
        self._connect = connect
        self._reader = f"meg-bi {reader}"[:_NAME_LIMIT]
        self._statement_timeout = statement_timeout
        self._connection: psycopg.Connection[Any] | None = None
        self._cancelled = False

    def __enter__(self) -> Meg:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def query(self, sql: str, parameters: Mapping[str, Any], batch_rows: int = BATCH_ROWS) -> Iterator[Result]:
        """Run `sql` in a transaction of its own: read-only, and of one snapshot from the first row to the last.

        Raises:
            SourceUnavailableError: MEG cannot be reached, or gave up on the way.
            SourceQueryError: MEG refused the query.
        """
        with self._errors_told():
            if self._connection is None:
                self._connection = self._open()
            with self._connection.transaction():
                self._connection.execute(
                    "SELECT set_config('application_name', %s, true), set_config('TimeZone', 'UTC', true),"
                    " set_config('statement_timeout', %s, true)",
                    (self._reader, str(int(self._statement_timeout.total_seconds() * 1000))),
                )
                with self._connection.cursor(name="meg_bi", binary=True) as cursor:
                    cursor.execute(sql, parameters)
                    columns = tuple(column.name for column in cursor.description or ())
                    yield Result(columns, self._batches(cursor, batch_rows))

    def cancel(self) -> None:
        """Make MEG stop the query that is running, from a signal handler or another thread."""
        self._cancelled = True
        if self._connection is not None:
            self._connection.cancel_safe(timeout=5)

    def _open(self) -> psycopg.Connection[Any]:
        connection = self._connect()
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return connection

    @staticmethod
    def _batches(cursor: psycopg.ServerCursor[Any], batch_rows: int) -> Iterator[list[tuple[Any, ...]]]:
        while batch := cursor.fetchmany(batch_rows):
            yield batch

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        where = f"MEG {self._region} (connection meg_{self._region})"
        try:
            yield
        except psycopg.errors.QueryCanceled as error:
            limit = f"{self._statement_timeout.total_seconds():g} s"
            raise SourceUnavailableError(
                "the query was stopped" if self._cancelled else "the query took too long",
                where=where,
                expected=f"an answer within {limit}",
                found=_first_line(error),
                cure="Clear the task to run it again."
                if self._cancelled
                else "Look at MEG's load, and for the index on megforms_auditsession (form_id, submitted_at).",
            ) from error
        except (psycopg.errors.InsufficientPrivilege, psycopg.ProgrammingError, psycopg.DataError) as error:
            raise SourceQueryError(
                "MEG refused the query",
                where=where,
                found=_first_line(error),
                cure="Fit include/sql/source/ to this MEG's schema, and let its role read what stands there.",
            ) from error
        except psycopg.Error as error:
            raise SourceUnavailableError(
                "MEG cannot be read",
                where=where,
                found=_first_line(error),
                cure="Check that the server is up, and the connection's host, port, database, login and password.",
            ) from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
