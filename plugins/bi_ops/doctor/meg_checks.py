"""A region's MEG: whether it can be read, whether it can be read alone, and whether reading it is cheap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache, partial
from typing import Any

from bi_ops.catalog.sql import include_dir, render_sql
from bi_ops.doctor.relation_checks import check_relations
from bi_ops.doctor.results import Finding, Status, check_result, run_checks
from bi_ops.errors import abbreviate
from bi_ops.meg.reader import MegReader
from bi_ops.meg.time_zone import check_timezone

MAX_CLOCK_SKEW = timedelta(seconds=10)
"""How far a server's clock may be from this machine's before figures near a period's end are in doubt."""

SHORT_STANDBY_DELAY = timedelta(minutes=5)
"""A standby that waits less for a query before it applies changes may end the reading of a chunk."""

_ANY = re.compile(r"""\((?:\w+\.)?(\w+|"[^"]+") = ANY \('\{-101,-102\}'""")

_PRIVATE = "passw|e_?mail|patient"
_PRIVILEGED_ROLES = ["pg_write_all_data", "pg_execute_server_program", "pg_write_server_files", "pg_read_server_files"]
_USERS_OWN = (
    "c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND n.nspname NOT LIKE 'pg\\_t%%'"
)
_IDS = "'{-101,-102}'"
_PROBES = {
    "sessions of a form": (
        "session",
        f"form_id = ANY ({_IDS}::bigint[]) AND submitted_at >= '2026-01-01Z' AND submitted_at < '2026-02-01Z'",
        "CREATE INDEX CONCURRENTLY ON megforms_auditsession (form_id, submitted_at)",
    ),
    "observations of a session": (
        "submission",
        f"session_id = ANY ({_IDS}::bigint[])",
        "CREATE INDEX CONCURRENTLY ON megforms_observation (session_id)",
    ),
}
"""What reading a chunk looks up: in which relation, by what, and the reference schema's index that serves it."""


def check_meg(region: str, meg: MegReader, timezone_name: str) -> Iterator[Finding]:
    """Examine one region's MEG.

    Args:
        region: The region.
        meg: Its MEG.
        timezone_name: The time zone in which the jobs cut periods.
    """
    subject = f"MEG {region}"
    first = list(run_checks(subject, [("connection", partial(_connection, subject))], meg))
    yield from first
    if first[0].status is Status.FAILED:
        return
    checks = [
        ("rights", partial(_rights, subject)),
        ("private columns", partial(_private_columns, subject)),
        ("clock", partial(_clock, subject)),
        ("time zone", partial(_timezone, subject, timezone_name)),
        ("standby", partial(_standby, subject)),
        ("relations", partial(check_relations, subject)),
        *((f"index: {name}", partial(_index, subject, name)) for name in _PROBES),
    ]
    yield from run_checks(subject, checks, meg)


def _connection(subject: str, meg: MegReader) -> Iterator[Finding]:
    [(version, database, role, replica, encrypted)] = meg.fetch_all(
        "SELECT current_setting('server_version'), current_database(), current_user, pg_is_in_recovery(),"
        " coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)"
    )
    how = "through TLS" if encrypted else "on this machine, without TLS"
    found = f"PostgreSQL {version}{', a replica' if replica else ''}, database {database}, role {role}, {how}"
    yield Finding(subject, "connection", Status.OK, found)


def _standby(subject: str, meg: MegReader) -> Iterator[Finding]:
    """Whether a replica lets queries finish; nothing for a primary."""
    [(is_replica, feedback, delay)] = meg.fetch_all(
        "SELECT pg_is_in_recovery(), current_setting('hot_standby_feedback'),"
        " (SELECT setting::bigint FROM pg_settings WHERE name = 'max_standby_streaming_delay')"
    )
    if not is_replica:
        return
    is_short = 0 <= delay < SHORT_STANDBY_DELAY.total_seconds() * 1000
    shown = (
        f"hot_standby_feedback {feedback}, max_standby_streaming_delay {'-1' if delay < 0 else f'{delay / 1000:g} s'}"
    )
    problem = f"{shown}: changes on the primary may end queries" if feedback == "off" and is_short else ""
    hint = "On the standby, set hot_standby_feedback = on, or max_standby_streaming_delay to 15min or more."
    yield check_result(subject, "standby", problem, ok_message=shown, hint=hint, warn_only=True)


def _rights(subject: str, meg: MegReader) -> Iterator[Finding]:
    """Whether the role, or one that it may become, could write anything, were its transactions not read-only."""
    mighty = meg.fetch_all(
        "SELECT rolname FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')"
        " AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls OR rolname = ANY (%(roles)s))"
        " ORDER BY 1",
        {"roles": _PRIVILEGED_ROLES},
    )
    written = meg.fetch_all(
        "SELECT DISTINCT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " JOIN pg_roles AS r ON pg_has_role(current_user, r.oid, 'MEMBER')"
        f" WHERE {_USERS_OWN} AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE')"
        " ELSE has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"
        " OR has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE') END ORDER BY 1"
    )
    [(creates,)] = meg.fetch_all("SELECT has_database_privilege(current_database(), 'CREATE')")
    problem = "the role may make schemas in the database" if creates else ""
    if written:
        problem = f"the role may write {abbreviate(row[0] for row in written)}"
    if mighty:
        roles = abbreviate(row[0] for row in mighty)
        problem = f"the role may do more than read, being or belonging to {roles}, or a superuser"
    hint = (
        "Make a role of its own with include/meg/reader_role.sql, a member of no other, and name it in the connection."
    )
    yield check_result(subject, "rights", problem, ok_message="the role can only read", hint=hint)
    [(makes_tables,)] = meg.fetch_all("SELECT has_schema_privilege('public', 'CREATE')")
    if makes_tables and not problem:
        found = "the role may make tables of its own in schema public, as everyone may until PostgreSQL 14"
        hint = "REVOKE CREATE ON SCHEMA public FROM PUBLIC, where MEG's own role owns the schema."
        yield Finding(subject, "rights: narrow", Status.WARNING, found, hint)


def _private_columns(subject: str, meg: MegReader) -> Iterator[Finding]:
    """Whether the role may read more than the columns of include/meg/reader_role.sql, and above all what is private."""
    seen = [
        (f"{table}.{column}", private)
        for table, column, private in meg.fetch_all(
            "SELECT a.attrelid::regclass::text, a.attname::text, a.attname ~* %(private)s"
            " FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
            f" JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {_USERS_OWN} AND c.relkind <> 'S'"
            " AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')"
            " ORDER BY 1, a.attnum",
            {"private": _PRIVATE},
        )
        if (table, column) not in _granted()
    ]
    private = [name for name, is_private in seen if is_private]
    hint = (
        "Run include/meg/reader_role.sql, which grants the required columns only; what PUBLIC or another role "
        "that it belongs to may read must be revoked there."
    )
    yield check_result(
        subject,
        "private columns",
        f"the role may read {abbreviate(private)}" if private else "",
        ok_message="no e-mail address, no password, no patient",
        hint=hint,
    )
    if seen and not private:
        found = f"the role may also read {abbreviate(name for name, _ in seen)}, which no job needs"
        yield Finding(subject, "columns", Status.WARNING, found, hint)


@lru_cache
def _granted() -> frozenset[tuple[str, str]]:
    """The columns that include/meg/reader_role.sql grants, with their tables."""
    text = (include_dir() / "meg" / "reader_role.sql").read_text()
    grants = re.findall(r"GRANT SELECT \(([^)]*)\) ON (\w+) TO", text)
    return frozenset((table, column.strip()) for columns, table in grants for column in columns.split(","))


def _clock(subject: str, meg: MegReader) -> Iterator[Finding]:
    before = datetime.now(timezone.utc)
    [(there,)] = meg.fetch_all("SELECT clock_timestamp()")
    yield check_clock(subject, before, there, datetime.now(timezone.utc))


def _timezone(subject: str, name: str, meg: MegReader) -> Iterator[Finding]:
    check_timezone(meg, name, context=subject)
    yield Finding(subject, "time zone", Status.OK, f"the server has {name}")


def check_clock(subject: str, before: datetime, there: datetime, after: datetime) -> Finding:
    """How far a server's clock is from this machine's, read between two instants."""
    ahead = there - (before + (after - before) / 2)
    seconds = f"{abs(ahead.total_seconds()):.1f} s {'ahead of' if ahead > timedelta() else 'behind'} this machine's"
    problem = seconds if abs(ahead) > MAX_CLOCK_SKEW + (after - before) else ""
    hint = "Set both clocks by NTP: a submission near midnight may otherwise fall into another month."
    return check_result(subject, "clock", problem, ok_message=seconds, hint=hint)


def _index(subject: str, name: str, meg: MegReader) -> Iterator[Finding]:
    """Whether an index leads with the column by which a chunk's rows are looked up, whatever that is called in MEG."""
    relation, condition, statement = _PROBES[name]
    sql = f"SELECT 1 FROM ({render_sql(f'source/{relation}.sql')}) AS relation WHERE {condition}"
    [(plan,)] = meg.fetch_all(f"EXPLAIN (FORMAT JSON, VERBOSE) {sql}")
    table, column = _lookup_column(plan[0]["Plan"])
    check = f"index: {name}"
    if not table:
        found = "PostgreSQL's plan does not show how it finds them"
        yield Finding(subject, check, Status.WARNING, found, f"See that MEG has what serves as {statement}.")
        return
    indexes = meg.fetch_all(
        "SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_am AS m ON m.oid = c.relam WHERE i.indrelid = %(table)s::regclass AND i.indisvalid"
        " AND m.amname = 'btree' AND i.indpred IS NULL AND pg_get_indexdef(i.indexrelid, 1, true) = %(column)s",
        {"table": table, "column": column},
    )
    problem = "" if indexes else f"no index of all of {table} leads with {column}: each chunk reads the whole table"
    hint = f"On MEG, as its owner: {statement}. Without it chunks cost about eighty times a single pass."
    yield check_result(subject, check, problem, ok_message=abbreviate(row[0] for row in indexes), hint=hint)


def _lookup_column(node: dict[str, Any]) -> tuple[str, str]:
    """The table, and its column, that a plan looks the probe's ids up in; empty where it does not say."""
    for text in ("Index Cond", "Recheck Cond", "Filter"):
        found = _ANY.search(node.get(text, ""))
        if found and "Relation Name" in node:
            return f'"{node["Schema"]}"."{node["Relation Name"]}"', found[1]
    for child in node.get("Plans", ()):
        if (found_below := _lookup_column(child)) != ("", ""):
            return found_below
    return "", ""
