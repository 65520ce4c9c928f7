"""Checks a region's MEG: connection, privileges, personal data, clock, required columns and indexes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache, partial
from typing import Any

from bi_ops.catalog.sql_templates import include_dir, render_sql
from bi_ops.doctor.results import Finding, Status, check_result, run_checks
from bi_ops.doctor.source_contract_checks import check_source_contract
from bi_ops.errors import abbreviate
from bi_ops.meg.reader import MegReader
from bi_ops.meg.server_time_zone import check_timezone

MAX_CLOCK_SKEW = timedelta(seconds=10)
"""The greatest difference of a server's clock that leaves figures near a period's end reliable."""

SHORT_STANDBY_DELAY = timedelta(minutes=5)
"""A standby with a shorter max_standby_streaming_delay may end the query of a chunk."""

_ANY = re.compile(r"""\((?:\w+\.)?(\w+|"[^"]+") = ANY \('\{-101,-102\}'""")

_PERSONAL = "passw|e_?mail|patient"
_PRIVILEGED_ROLES = ["pg_write_all_data", "pg_execute_server_program", "pg_write_server_files", "pg_read_server_files"]
_USERS_OWN = (
    "c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND n.nspname NOT LIKE 'pg\\_t%%'"
)
_IDS = "'{-101,-102}'"
_PROBES = {
    "sessions by form": (
        "session",
        f"form_id = ANY ({_IDS}::bigint[]) AND submitted_at >= '2026-01-01Z' AND submitted_at < '2026-02-01Z'",
        "CREATE INDEX CONCURRENTLY ON megforms_auditsession (form_id, submitted_at)",
    ),
    "observations by session": (
        "submission",
        f"session_id = ANY ({_IDS}::bigint[])",
        "CREATE INDEX CONCURRENTLY ON megforms_observation (session_id)",
    ),
}
"""The lookups of a chunk's query: the relation, the condition, and the index of the reference schema for it."""


def check_meg(region: str, meg: MegReader, timezone_name: str) -> Iterator[Finding]:
    """Check one region's MEG.

    Args:
        region: The region.
        meg: Its MEG.
        timezone_name: The time zone of the periods.
    """
    subject = f"MEG {region}"
    connection = list(run_checks(subject, [("connection", partial(_connection, subject))], meg))
    yield from connection
    if connection[0].status is Status.FAILED:
        return
    checks = [
        ("network address", partial(_network_address, subject)),
        ("privileges", partial(_privileges, subject)),
        ("personal data access", partial(_personal_data_access, subject)),
        ("clock skew", partial(_clock_skew, subject)),
        ("time zone", partial(_timezone, subject, timezone_name)),
        ("standby", partial(_standby, subject)),
        ("required columns", partial(check_source_contract, subject)),
        *((f"indexes: {name}", partial(_index, subject, name)) for name in _PROBES),
    ]
    yield from run_checks(subject, checks, meg)


def _connection(subject: str, meg: MegReader) -> Iterator[Finding]:
    [(version, database, role, is_standby, encrypted)] = meg.fetch_all(
        "SELECT current_setting('server_version'), current_database(), current_user, pg_is_in_recovery(),"
        " coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)"
    )
    server = f"PostgreSQL {version}{', a standby' if is_standby else ''}, database {database}, role {role}"
    yield Finding(subject, "connection", Status.OK, server)
    yield Finding(
        subject, "TLS", Status.OK, "on" if encrypted else "off; a connection on this machine, or one of PgBouncer's"
    )


def _network_address(subject: str, meg: MegReader) -> Iterator[Finding]:
    """The address that MEG's firewall and pg_hba.conf must allow."""
    [(address,)] = meg.fetch_all("SELECT host(inet_client_addr())")
    message = f"the server sees {address}" if address else "none: a Unix socket on this machine"
    yield Finding(subject, "network address", Status.OK, message)


def _standby(subject: str, meg: MegReader) -> Iterator[Finding]:
    """Whether a standby lets queries finish; nothing for a primary."""
    [(is_standby, feedback, delay)] = meg.fetch_all(
        "SELECT pg_is_in_recovery(), current_setting('hot_standby_feedback'),"
        " (SELECT setting::bigint FROM pg_settings WHERE name = 'max_standby_streaming_delay')"
    )
    if not is_standby:
        return
    is_short = 0 <= delay < SHORT_STANDBY_DELAY.total_seconds() * 1000
    shown = (
        f"hot_standby_feedback {feedback}, max_standby_streaming_delay {'-1' if delay < 0 else f'{delay / 1000:g} s'}"
    )
    yield check_result(
        subject,
        "standby",
        "changes on the primary may end queries on this standby" if feedback == "off" and is_short else "",
        ok_message=shown,
        expected="hot_standby_feedback on, or a max_standby_streaming_delay longer than the queries",
        actual=shown,
        hint="On the standby, set hot_standby_feedback = on, or max_standby_streaming_delay to 15min or more.",
        warn_only=True,
    )


def _privileges(subject: str, meg: MegReader) -> Iterator[Finding]:
    """Whether the role, or one that it is a member of, has more than read privileges."""
    privileged = meg.fetch_all(
        "SELECT rolname FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')"
        " AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls OR rolname = ANY (%(roles)s))"
        " ORDER BY 1",
        {"roles": _PRIVILEGED_ROLES},
    )
    writable = meg.fetch_all(
        "SELECT DISTINCT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " JOIN pg_roles AS r ON pg_has_role(current_user, r.oid, 'MEMBER')"
        f" WHERE {_USERS_OWN} AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE')"
        " ELSE has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"
        " OR has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE') END ORDER BY 1"
    )
    [(creates,)] = meg.fetch_all("SELECT has_database_privilege(current_database(), 'CREATE')")
    actual = "CREATE on the database" if creates else ""
    if writable:
        actual = f"write privileges on {abbreviate(row[0] for row in writable)}"
    if privileged:
        actual = f"superuser or administrative privileges, through {abbreviate(row[0] for row in privileged)}"
    yield check_result(
        subject,
        "privileges",
        "the role can do more than read" if actual else "",
        ok_message="the role can only read",
        expected="a role with read privileges only",
        actual=actual,
        hint="Create a separate role with include/meg/reader_role.sql, not a member of any other role, and set it as "
        "the connection's login.",
    )
    [(creates_tables,)] = meg.fetch_all("SELECT has_schema_privilege('public', 'CREATE')")
    if creates_tables and not actual:
        yield Finding(
            subject,
            "excess privileges",
            Status.WARNING,
            "the role can create tables in the schema public, the default before PostgreSQL 15",
            expected="no CREATE privilege on any schema",
            hint="REVOKE CREATE ON SCHEMA public FROM PUBLIC, provided that MEG's own role owns the schema.",
        )


def _personal_data_access(subject: str, meg: MegReader) -> Iterator[Finding]:
    """Whether the role can read more than include/meg/reader_role.sql grants, above all personal data."""
    excess = [
        (f"{table}.{column}", is_personal)
        for table, column, is_personal in meg.fetch_all(
            "SELECT a.attrelid::regclass::text, a.attname::text, a.attname ~* %(personal)s"
            " FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
            f" JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {_USERS_OWN} AND c.relkind <> 'S'"
            " AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')"
            " ORDER BY 1, a.attnum",
            {"personal": _PERSONAL},
        )
        if (table, column) not in _granted()
    ]
    personal = [name for name, is_personal in excess if is_personal]
    hint = (
        "Run include/meg/reader_role.sql, which grants the required columns only; revoke what PUBLIC, or another role "
        "of this one, may read."
    )
    yield check_result(
        subject,
        "personal data access",
        f"the role can read {abbreviate(personal)}" if personal else "",
        ok_message="the role cannot read e-mail addresses, passwords or patients",
        expected="no access to e-mail addresses, passwords or patients",
        hint=hint,
    )
    if excess and not personal:
        yield Finding(
            subject,
            "excess columns",
            Status.WARNING,
            f"the role can also read {abbreviate(name for name, _ in excess)}, which no job needs",
            expected="access to the columns of include/meg/reader_role.sql only",
            hint=hint,
        )


@lru_cache
def _granted() -> frozenset[tuple[str, str]]:
    """The columns that include/meg/reader_role.sql grants, with their tables."""
    text = (include_dir() / "meg" / "reader_role.sql").read_text()
    grants = re.findall(r"GRANT SELECT \(([^)]*)\) ON (\w+) TO", text)
    return frozenset((table, column.strip()) for columns, table in grants for column in columns.split(","))


def _clock_skew(subject: str, meg: MegReader) -> Iterator[Finding]:
    before = datetime.now(timezone.utc)
    [(server_time,)] = meg.fetch_all("SELECT clock_timestamp()")
    yield check_clock(subject, before, server_time, datetime.now(timezone.utc))


def _timezone(subject: str, name: str, meg: MegReader) -> Iterator[Finding]:
    check_timezone(meg, name, context=subject)
    [(own,)] = meg.fetch_all("SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'")
    yield Finding(subject, "time zone", Status.OK, f"the server has {name}; its own is {own}")


def check_clock(subject: str, before: datetime, server_time: datetime, after: datetime) -> Finding:
    """How far a server's clock is from this machine's, read between two instants."""
    ahead = server_time - (before + (after - before) / 2)
    seconds = (
        f"{abs(ahead.total_seconds()):.1f} s {'ahead of' if ahead > timedelta() else 'behind'} this machine's clock"
    )
    problem = seconds if abs(ahead) > MAX_CLOCK_SKEW + (after - before) else ""
    return check_result(
        subject,
        "clock skew",
        problem,
        ok_message=seconds,
        expected=f"at most {MAX_CLOCK_SKEW.total_seconds():g} s; else a submission near midnight may fall into another "
        "month",
        hint="Synchronize both clocks by NTP.",
    )


def _index(subject: str, name: str, meg: MegReader) -> Iterator[Finding]:
    """Whether an index leads with the column by which a chunk's rows are looked up, whatever its name in MEG."""
    relation, condition, statement = _PROBES[name]
    sql = f"SELECT 1 FROM ({render_sql(f'source/{relation}.sql')}) AS relation WHERE {condition}"
    [(plan,)] = meg.fetch_all(f"EXPLAIN (FORMAT JSON, VERBOSE) {sql}")
    table, column = _lookup_column(plan[0]["Plan"])
    check = f"indexes: {name}"
    if not table:
        yield Finding(
            subject,
            check,
            Status.WARNING,
            "not checked",
            expected="a query plan that shows the lookup's table and column",
            actual="another plan, as of a view or a partitioned table",
            hint=f"Make sure that MEG has an equivalent of: {statement}.",
        )
        return
    indexes = meg.fetch_all(
        "SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_am AS m ON m.oid = c.relam WHERE i.indrelid = %(table)s::regclass AND i.indisvalid"
        " AND m.amname = 'btree' AND i.indpred IS NULL AND pg_get_indexdef(i.indexrelid, 1, true) = %(column)s",
        {"table": table, "column": column},
    )
    yield check_result(
        subject,
        check,
        "" if indexes else f"no full index on {table} leads with {column}, so each chunk reads the whole table",
        ok_message=abbreviate(row[0] for row in indexes),
        expected=f"a B-tree index on all rows that leads with {column}; without it chunks cost about eighty times a "
        "single pass",
        hint=f"On MEG, as the table's owner: {statement}.",
    )


def _lookup_column(node: dict[str, Any]) -> tuple[str, str]:
    """The table and column in which a plan looks the ids up; empty if the plan does not show them."""
    for text in ("Index Cond", "Recheck Cond", "Filter"):
        match = _ANY.search(node.get(text, ""))
        if match and "Relation Name" in node:
            return f'"{node["Schema"]}"."{node["Relation Name"]}"', match[1]
    for child in node.get("Plans", ()):
        if (lookup := _lookup_column(child)) != ("", ""):
            return lookup
    return "", ""
