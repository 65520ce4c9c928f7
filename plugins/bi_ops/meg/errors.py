"""What psycopg says when MEG fails, in the pipeline's words: what is wrong, and whether another try may help."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import psycopg

from bi_ops.errors import (
    BiError,
    ConnectionConfigError,
    InvalidSourceRowError,
    SourceQueryError,
    SourceUnavailableError,
)

_EXPECTED_LOGIN = "a login that this MEG lets in, as include/meg/reader_role.sql makes it"
_ENCRYPTED = 'a MEG that speaks TLS, with a certificate that "sslmode" and "sslrootcert" fit'
_CORRECT_HINT = "Correct the connection, or ask MEG's administrators for access; then trigger bi_doctor."


class ConnectionErrorRule(NamedTuple):
    """A connection error that no retry fixes. libpq gives it no code (SQLSTATE), only a text.

    Attributes:
        pattern: What the text contains.
        message: The pipeline's message.
        expected: What would have been right.
        hint: The hint.
    """

    pattern: re.Pattern[str]
    message: str
    expected: str
    hint: str = _CORRECT_HINT


_PGBOUNCER_REFUSALS = (
    ConnectionErrorRule(
        re.compile(
            r'no such (database|user)\b|bouncer config error|database "[^"]*" is disabled|not allow connections:'
        ),
        "PgBouncer does not have what the connection names",
        "a database and a user of PgBouncer's configuration",
        "Correct the connection's schema and login, or add the database to pgbouncer.ini, the user to its auth_file.",
    ),
    ConnectionErrorRule(
        re.compile(r"unsupported (options )?startup parameter"),
        "PgBouncer refuses a parameter of the connection",
        "parameters that PgBouncer supports or ignores",
        "Remove the parameter from the connection's extra, or add it to ignore_startup_parameters in pgbouncer.ini "
        "(ignore_startup_parameters = options).",
    ),
    ConnectionErrorRule(
        re.compile(r"server login failed: (?!.*(starting up|shutting down|recovery mode|too many|slots are reserved))"),
        "PgBouncer cannot log in to MEG",
        "a password that MEG's server accepts, of a type that PgBouncer can use",
        "Correct the user's password in PgBouncer's auth_file or auth_query.",
    ),
    ConnectionErrorRule(
        re.compile(r"\bSSL required"),
        "PgBouncer requires TLS",
        '"sslmode" in the connection\'s extra',
        'Put {"sslmode": "verify-full"} into the connection\'s extra.',
    ),
)
"""What PgBouncer says, on a new connection or at the first query on one that was waiting for a server.

https://github.com/pgbouncer/pgbouncer/blob/master/src/client.c
"""
_SERVER_REFUSALS = (
    ConnectionErrorRule(
        re.compile(r"authentication failed|no password supplied"),
        "authentication to MEG failed",
        _EXPECTED_LOGIN,
    ),
    ConnectionErrorRule(
        re.compile(r'(role|database) ".*" does not exist'),
        "MEG has no such database or role",
        _EXPECTED_LOGIN,
    ),
    ConnectionErrorRule(
        re.compile(r"no pg_hba.conf entry|permission denied for database|login rejected"),
        "MEG rejected this client address",
        _EXPECTED_LOGIN,
    ),
    ConnectionErrorRule(
        re.compile(r"server does not support SSL|certificate verify failed|root certificate|certificate .* not match"),
        "MEG offers no encrypted connection that can be trusted",
        _ENCRYPTED,
    ),
    ConnectionErrorRule(re.compile(r"invalid \w+ value"), "the connection's extra is wrong", "libpq's parameters"),
)
CONNECTION_ERROR_RULES = _PGBOUNCER_REFUSALS + _SERVER_REFUSALS
_TIMEOUTS = {
    "25P03": "idle_in_transaction_session_timeout",
    "25P04": "transaction_timeout",
    "55P03": "lock_timeout",
    "57P05": "idle_session_timeout",
}
"""PostgreSQL's settings by the SQLSTATE with which they end a query, beside statement_timeout, which is set here.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
_CONFLICT = "40001"
"""The SQLSTATE with which a standby ends a query; reading one snapshot of a primary never gives it."""
_QUOTED = re.compile(r'"[^"]*"')


@contextmanager
def translate_psycopg_errors(
    region: str,
    application_name: str,
    *,
    statement_timeout: timedelta,
    cancelled: Callable[[], bool],
    connected: Callable[[], bool],
) -> Iterator[None]:
    """Turn psycopg's errors into the pipeline's own.

    Args:
        region: Whose MEG it is.
        application_name: Who reads it: the slice and the step.
        statement_timeout: After how long MEG gives a statement up.
        cancelled: Whether the query was stopped on purpose.
        connected: Whether the connection has been made.

    Raises:
        SourceUnavailableError: MEG cannot be reached, or gave up on the way; another try may help.
        ConnectionConfigError: MEG will not have the connection.
        SourceQueryError: MEG refused the query.
        InvalidSourceRowError: MEG could not compute or send a value.
    """
    context = f"{application_name}, MEG {region} (connection meg_{region})"
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        raise _canceled(error, context, statement_timeout, on_purpose=cancelled()) from None
    except (psycopg.DataError, UnicodeDecodeError) as error:
        raise InvalidSourceRowError(
            "a value in MEG cannot be read",
            context=context,
            expected="times in the years 1 to 9999, finite numbers, text in the database's own encoding",
            actual=_QUOTED.sub('"..."', summarize(error)),  # it repeats the value, which may be a person's name
            hint="Find the row with psql and correct it in MEG, or leave it out in include/sql/source/.",
        ) from None
    except psycopg.Error as error:
        raise _translate(error, context, refusable=not connected()) from None


def _translate(error: psycopg.Error, context: str, *, refusable: bool) -> BiError:
    if ended := _ended(error, context):
        return ended
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) or _is_cut_off(error):
        return _connection_error(error, context, refusable=refusable)
    return SourceQueryError(
        "MEG refused the query",
        context=context,
        actual=summarize(error),
        hint="Fit include/sql/source/ to this MEG's schema, and let its role read what stands there.",
    )


def _is_cut_off(error: psycopg.Error) -> bool:
    """Whether the connection ended amid an answer: an internal error of psycopg's own, and none of the server's."""
    return isinstance(error, psycopg.InternalError) and error.sqlstate is None


def _canceled(
    error: psycopg.Error, context: str, statement_timeout: timedelta, *, on_purpose: bool
) -> SourceUnavailableError:
    """The error of a query that was cancelled: by this task, by an administrator, or by statement_timeout."""
    by_hand = "user request" in str(error)
    return SourceUnavailableError(
        "the query was stopped"
        if on_purpose
        else "an administrator of MEG's cancelled the query"
        if by_hand
        else "the query took too long",
        context=context,
        expected=f"an answer within {statement_timeout.total_seconds():g} s (statement_timeout)",
        actual=summarize(error),
        hint="Clear the task to run it again."
        if on_purpose
        else "Retried automatically. If it persists, ask MEG's administrators why."
        if by_hand
        else "Look at MEG's load, and for the index on megforms_auditsession (form_id, submitted_at).",
    )


def _ended(error: psycopg.Error, context: str) -> SourceUnavailableError | None:
    """The error of a query that MEG ended by a rule of its own, such as a time limit; None for any other."""
    if error.sqlstate == _CONFLICT or "conflict with recovery" in str(error):
        return SourceUnavailableError(
            "a conflict with recovery on this standby ended the query",
            context=context,
            expected="a standby that keeps the rows of a running query: hot_standby_feedback on, or a "
            "max_standby_streaming_delay longer than the query",
            actual=summarize(error),
            hint="Retried automatically. If it persists, set hot_standby_feedback = on on the standby, or raise its "
            "max_standby_streaming_delay.",
        )
    return _timeout(error, context)


def _timeout(error: psycopg.Error, context: str) -> SourceUnavailableError | None:
    """The error of one of MEG's own time limits; None for any other."""
    setting = _TIMEOUTS.get(error.sqlstate or "")
    if setting is None:
        return None
    return SourceUnavailableError(
        "a time limit of MEG's ended the query",
        context=context,
        expected=f"a {setting} that leaves a query its time, for this role in this database",
        actual=summarize(error),
        hint=f"Retried automatically. If it persists, raise {setting} for the role (ALTER ROLE ... SET), or look at "
        "MEG's load and locks.",
    )


def _connection_error(error: psycopg.Error, context: str, *, refusable: bool) -> BiError:
    for refusal in CONNECTION_ERROR_RULES if refusable else _PGBOUNCER_REFUSALS:
        if refusal.pattern.search(str(error)):
            return ConnectionConfigError(
                refusal.message,
                context=context,
                expected=refusal.expected,
                actual=summarize(error),
                hint=refusal.hint,
            )
    return SourceUnavailableError(
        "MEG cannot be read",
        context=context,
        expected="a server that is up, and has a connection free",
        actual=summarize(error),
        hint="Check that the server is up and can be reached from here, and the connection's host and port.",
    )


def summarize(error: BaseException) -> str:
    """The kind of an error and what it says first, without the query and the hints behind it."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
