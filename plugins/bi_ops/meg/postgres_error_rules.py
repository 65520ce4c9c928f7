"""Translates psycopg's errors into MEG BI's, by a table of rules: what happened, and whether a retry may help."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg

from bi_ops.errors import (
    ConnectionConfigError,
    ErrorRule,
    InvalidSourceRowError,
    SourceQueryError,
    SourceUnavailableError,
    find_rule,
)

_LOGIN = "a login that MEG accepts, as created by include/meg/reader_role.sql"
_LOGIN_HINT = "Correct the connection, or ask MEG's administrators for access; then trigger bi_doctor."
_TIMEOUT = "an answer within {statement_timeout} s (statement_timeout)"

_STOPPED = ErrorRule(
    SourceUnavailableError,
    "the query was stopped",
    _TIMEOUT,
    "Retried automatically, unless a user stopped the task; then clear it to run it again.",
)
_INVALID_VALUE = ErrorRule(
    InvalidSourceRowError,
    "a value in MEG cannot be read",
    "times in the years 1 to 9999, finite numbers, text in the database's own encoding",
    "Find the row with psql and correct it in MEG, or exclude it in include/sql/source/.",
)
_CONNECTION_LOST = ErrorRule(
    SourceUnavailableError,
    "MEG cannot be read",
    "a running server with a free connection",
    "Retried automatically. If it persists, check that the server is up and can be reached from here, and the "
    "connection's host and port.",
)
_QUERY_REJECTED = ErrorRule(
    SourceQueryError,
    "MEG rejected the query",
    "",
    "Adapt include/sql/source/ to this MEG's schema, and check the role's privileges with bi_doctor.",
)


def _time_limit(code: str, setting: str) -> ErrorRule:
    return ErrorRule(
        SourceUnavailableError,
        f"a time limit in MEG ended the query ({setting})",
        f"a {setting} that leaves enough time for a query of this role in this database",
        f"Retried automatically. If it persists, raise {setting} for the role (ALTER ROLE ... SET), or check MEG's "
        "load and locks.",
        codes=(code,),
    )


_QUERY_RULES = (
    ErrorRule(
        SourceUnavailableError,
        "a MEG administrator cancelled the query",
        _TIMEOUT,
        "Retried automatically. If it persists, ask MEG's administrators for the reason.",
        codes=("57014",),
        pattern="user request",
        both=True,
    ),
    ErrorRule(
        SourceUnavailableError,
        "the query took too long",
        _TIMEOUT,
        "Retried automatically. If it persists, check MEG's load and the index on megforms_auditsession "
        "(form_id, submitted_at).",
        codes=("57014",),
    ),
    ErrorRule(
        SourceUnavailableError,
        "a conflict with recovery on this standby ended the query",
        "a standby that keeps the rows of a running query: hot_standby_feedback on, or a max_standby_streaming_delay "
        "longer than the query",
        "Retried automatically. If it persists, set hot_standby_feedback = on on the standby, or raise its "
        "max_standby_streaming_delay.",
        codes=("40001",),  # reading one snapshot of a primary never gives it
        pattern="conflict with recovery",
    ),
    _time_limit("25P03", "idle_in_transaction_session_timeout"),
    _time_limit("25P04", "transaction_timeout"),
    _time_limit("55P03", "lock_timeout"),
    _time_limit("57P05", "idle_session_timeout"),
)
"""Errors by which MEG ends a query.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
_PGBOUNCER_RULES = (
    ErrorRule(
        ConnectionConfigError,
        "PgBouncer does not know the connection's database or user",
        "a database and a user of PgBouncer's configuration",
        "Correct the connection's schema and login, or add the database to pgbouncer.ini and the user to its "
        "auth_file.",
        pattern=r'no such (database|user)\b|bouncer config error|database "[^"]*" is disabled|not allow connections:',
    ),
    ErrorRule(
        ConnectionConfigError,
        "PgBouncer rejected a connection parameter",
        "parameters that PgBouncer supports or ignores",
        "Remove the parameter from the connection's extra, or add it to ignore_startup_parameters in pgbouncer.ini "
        "(ignore_startup_parameters = options).",
        pattern=r"unsupported (options )?startup parameter",
    ),
    ErrorRule(
        ConnectionConfigError,
        "PgBouncer cannot log in to MEG",
        "a password that MEG's server accepts, of a type that PgBouncer supports",
        "Correct the user's password in PgBouncer's auth_file or auth_query.",
        pattern=r"server login failed: "
        r"(?!.*(starting up|shutting down|recovery mode|too many|slots are reserved))",
    ),
    ErrorRule(
        ConnectionConfigError,
        "PgBouncer requires TLS",
        '"sslmode" in the connection\'s extra',
        'Set {"sslmode": "verify-full"} in the connection\'s extra.',
        pattern=r"\bSSL required",
    ),
)
"""PgBouncer's errors: on a new connection, or at the first query on one that was waiting for a server.

https://github.com/pgbouncer/pgbouncer/blob/master/src/client.c
"""
_LOGIN_RULES = (
    ErrorRule(
        ConnectionConfigError,
        "authentication to MEG failed",
        _LOGIN,
        _LOGIN_HINT,
        pattern="authentication failed|no password supplied",
    ),
    ErrorRule(
        ConnectionConfigError,
        "MEG has no such database or role",
        _LOGIN,
        _LOGIN_HINT,
        pattern='(role|database) ".*" does not exist',
    ),
    ErrorRule(
        ConnectionConfigError,
        "MEG rejected this client address",
        _LOGIN,
        _LOGIN_HINT,
        pattern="no pg_hba.conf entry|permission denied for database|login rejected",
    ),
    ErrorRule(
        ConnectionConfigError,
        "no verified TLS connection to MEG",
        'a MEG server with TLS, and a certificate that "sslmode" and "sslrootcert" accept',
        _LOGIN_HINT,
        pattern="server does not support SSL|certificate verify failed|root certificate|certificate .* not match",
    ),
    ErrorRule(
        ConnectionConfigError,
        "invalid option in the connection's extra",
        "libpq's parameters",
        "Correct the connection's extra; then trigger bi_doctor.",
        pattern=r"invalid \w+ value",
    ),
)
"""Errors while connecting that no retry fixes. libpq gives them no code (SQLSTATE), only a text."""

ERROR_RULES = (
    *_QUERY_RULES,
    *_PGBOUNCER_RULES,
    *_LOGIN_RULES,
    _STOPPED,
    _INVALID_VALUE,
    _CONNECTION_LOST,
    _QUERY_REJECTED,
)
"""All rules, for the documents."""

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
    """Translate psycopg's errors.

    Args:
        region: The region of the MEG.
        application_name: The reader: the slice and the step.
        statement_timeout: The time limit of a statement.
        cancelled: Whether this process cancelled the query.
        connected: Whether the connection has been made.

    Raises:
        SourceUnavailableError: MEG cannot be reached, or ended the query; a retry may help.
        ConnectionConfigError: MEG or PgBouncer rejected the connection.
        SourceQueryError: MEG rejected the query.
        InvalidSourceRowError: MEG could not compute or send a value.
    """
    context = f"{application_name}, MEG {region} (connection meg_{region})"
    try:
        yield
    except (psycopg.Error, UnicodeDecodeError) as error:
        rule = _rule_for(error, cancelled=cancelled(), connected=connected())
        actual = summarize(error)
        if rule is _INVALID_VALUE:
            actual = _QUOTED.sub('"..."', actual)  # the quoted value may be a person's name
        expected = rule.expected.replace("{statement_timeout}", f"{statement_timeout.total_seconds():g}")
        raise rule.to_error(context, actual, expected=expected) from None


def _rule_for(error: psycopg.Error | UnicodeDecodeError, *, cancelled: bool, connected: bool) -> ErrorRule:
    if isinstance(error, psycopg.DataError | UnicodeDecodeError):
        return _INVALID_VALUE
    if cancelled and isinstance(error, psycopg.errors.QueryCanceled):
        return _STOPPED
    if _is_connection_error(error):
        rules = (*_QUERY_RULES, *_PGBOUNCER_RULES, *(() if connected else _LOGIN_RULES))
        return find_rule(rules, error.sqlstate, str(error), _CONNECTION_LOST)
    return find_rule(_QUERY_RULES, error.sqlstate, str(error), _QUERY_REJECTED)


def _is_connection_error(error: psycopg.Error) -> bool:
    """Whether the connection failed; where it ends amid an answer, psycopg raises an InternalError without a code."""
    is_cut_off = isinstance(error, psycopg.InternalError) and error.sqlstate is None
    return is_cut_off or isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def summarize(error: BaseException) -> str:
    """An error's class and the first line of its text, without the query and the hints that follow."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
