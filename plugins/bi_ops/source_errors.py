"""What psycopg says when MEG fails, in the pipeline's words: what is wrong, and whether another try may help."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg

from bi_ops.errors import (
    BiError,
    ConnectionSettingsError,
    SourceQueryError,
    SourceRowError,
    SourceUnavailableError,
)

_LET_IN = "a login that this MEG lets in, as include/meg/reader.sql makes it"
_ENCRYPTED = 'a MEG that speaks TLS, with a certificate that "sslmode" and "sslrootcert" fit'
REFUSALS = (
    (re.compile(r"authentication failed|no password supplied"), "MEG does not let this account in", _LET_IN),
    (re.compile(r'(role|database) ".*" does not exist'), "MEG does not have what the connection names", _LET_IN),
    (re.compile(r"no pg_hba.conf entry|permission denied for database"), "MEG does not let this address in", _LET_IN),
    (
        re.compile(r"server does not support SSL|certificate verify failed|root certificate|certificate .* not match"),
        "MEG offers no encrypted connection that can be trusted",
        _ENCRYPTED,
    ),
    (re.compile(r"invalid \w+ value"), "the connection's extra is wrong", "libpq's parameters"),
)
"""What a failed connection says that no retry mends. libpq gives it no code (SQLSTATE), only a text."""
_TIMEOUTS = {
    "25P03": "idle_in_transaction_session_timeout",
    "25P04": "transaction_timeout",
    "55P03": "lock_timeout",
    "57P05": "idle_session_timeout",
}
"""PostgreSQL's settings by the SQLSTATE with which they end a query, beside statement_timeout, which is set here.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
_QUOTED = re.compile(r'"[^"]*"')


@contextmanager
def source_errors_told(
    region: str,
    reader: str,
    *,
    statement_timeout: timedelta,
    cancelled: Callable[[], bool],
    connected: Callable[[], bool],
) -> Iterator[None]:
    """Turn psycopg's errors into the pipeline's own.

    Args:
        region: Whose MEG it is.
        reader: Who reads it: the slice and the step.
        statement_timeout: After how long MEG gives a statement up.
        cancelled: Whether the query was stopped on purpose.
        connected: Whether the connection has been made.

    Raises:
        SourceUnavailableError: MEG cannot be reached, or gave up on the way; another try may help.
        ConnectionSettingsError: MEG will not have the connection.
        SourceQueryError: MEG refused the query.
        SourceRowError: MEG could not compute or send a value.
    """
    where = f"{reader}, MEG {region} (connection meg_{region})"
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        limit = f"{statement_timeout.total_seconds():g} s"
        raise SourceUnavailableError(
            "the query was stopped" if cancelled() else "the query took too long",
            where=where,
            expected=f"an answer within {limit}",
            found=first_line(error),
            cure="Clear the task to run it again."
            if cancelled()
            else "Look at MEG's load, and for the index on megforms_auditsession (form_id, submitted_at).",
        ) from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise _timeout(error, where) or _of_connection(error, where, refusable=not connected()) from None
    except (psycopg.DataError, UnicodeDecodeError) as error:
        raise SourceRowError(
            "a value in MEG cannot be read",
            where=where,
            expected="times in the years 1 to 9999, finite numbers, text in the database's own encoding",
            found=_QUOTED.sub('"..."', first_line(error)),  # it repeats the value, which may be somebody's name
            cure="Find the row with psql and mend it in MEG, or leave it out in include/sql/source/.",
        ) from None
    except psycopg.Error as error:
        if timeout := _timeout(error, where):
            raise timeout from None
        raise SourceQueryError(
            "MEG refused the query",
            where=where,
            found=first_line(error),
            cure="Fit include/sql/source/ to this MEG's schema, and let its role read what stands there.",
        ) from None


def _timeout(error: psycopg.Error, where: str) -> SourceUnavailableError | None:
    """The error of one of MEG's own time limits; None for any other."""
    setting = _TIMEOUTS.get(error.sqlstate or "")
    if setting is None:
        return None
    return SourceUnavailableError(
        "a time limit of MEG's ended the query",
        where=where,
        expected=f"a {setting} that leaves a query its time, for this role in this database",
        found=first_line(error),
        cure=f"Retried automatically. If it persists, raise {setting} for the role (ALTER ROLE ... SET), or look at "
        "MEG's load and locks.",
    )


def _of_connection(error: psycopg.Error, where: str, *, refusable: bool) -> BiError:
    for pattern, what, expected in REFUSALS:
        if refusable and pattern.search(str(error)):
            return ConnectionSettingsError(
                what,
                where=where,
                expected=expected,
                found=first_line(error),
                cure="Mend the connection, or what MEG's administrators allow it; bi_doctor tells whether all is well.",
            )
    return SourceUnavailableError(
        "MEG cannot be read",
        where=where,
        expected="a server that is up, and has a connection free",
        found=first_line(error),
        cure="Check that the server is up and can be reached from here, and the connection's host and port.",
    )


def first_line(error: BaseException) -> str:
    """The kind of an error and what it says first, without the query and the hints behind it."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
