"""A region's MEG: whether it can be read, whether it can be read alone, and whether reading it is cheap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache, partial
from typing import Any

from bi_ops.doctor.findings import Finding, Verdict, examine, judged, some
from bi_ops.doctor.meg_relations import check_relations
from bi_ops.source import Meg
from bi_ops.source_timezone import check_timezone
from bi_ops.templates import include_folder, render

LARGEST_SKEW = timedelta(seconds=10)
"""How far a server's clock may be from this machine's before figures near a period's end are in doubt."""

SHORT_STANDBY_DELAY = timedelta(minutes=5)
"""A standby that waits less for a query before it applies changes may end the reading of a chunk."""

_ANY = re.compile(r"""\((?:\w+\.)?(\w+|"[^"]+") = ANY \('\{-101,-102\}'""")

_PRIVATE = "passw|e_?mail|patient"
_MIGHTY = ["pg_write_all_data", "pg_execute_server_program", "pg_write_server_files", "pg_read_server_files"]
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


def examine_meg(region: str, meg: Meg, timezone_name: str) -> Iterator[Finding]:
    """Examine one region's MEG.

    Args:
        region: The region.
        meg: Its MEG.
        timezone_name: The time zone in which the jobs cut periods.
    """
    subject = f"MEG {region}"
    first = list(examine(subject, [("connection", partial(_connection, subject))], meg))
    yield from first
    if first[0].verdict is Verdict.FAILED:
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
    yield from examine(subject, checks, meg)


def _connection(subject: str, meg: Meg) -> Iterator[Finding]:
    [(version, database, role, replica, encrypted)] = meg.answer(
        "SELECT current_setting('server_version'), current_database(), current_user, pg_is_in_recovery(),"
        " coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)"
    )
    how = "through TLS" if encrypted else "on this machine, without TLS"
    found = f"PostgreSQL {version}{', a replica' if replica else ''}, database {database}, role {role}, {how}"
    yield Finding(subject, "connection", Verdict.OK, found)


def _standby(subject: str, meg: Meg) -> Iterator[Finding]:
    """Whether a replica lets queries finish; nothing for a primary."""
    [(is_replica, feedback, delay)] = meg.answer(
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
    cure = "On the standby, set hot_standby_feedback = on, or max_standby_streaming_delay to 15min or more."
    yield judged(subject, "standby", problem, fine=shown, cure=cure, warn=True)


def _rights(subject: str, meg: Meg) -> Iterator[Finding]:
    """Whether the role, or one that it may become, could write anything, were its transactions not read-only."""
    mighty = meg.answer(
        "SELECT rolname FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER')"
        " AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls OR rolname = ANY (%(roles)s))"
        " ORDER BY 1",
        {"roles": _MIGHTY},
    )
    written = meg.answer(
        "SELECT DISTINCT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " JOIN pg_roles AS r ON pg_has_role(current_user, r.oid, 'MEMBER')"
        f" WHERE {_USERS_OWN} AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE')"
        " ELSE has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"
        " OR has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE') END ORDER BY 1"
    )
    [(creates,)] = meg.answer("SELECT has_database_privilege(current_database(), 'CREATE')")
    problem = "the role may make schemas in the database" if creates else ""
    if written:
        problem = f"the role may write {some(row[0] for row in written)}"
    if mighty:
        problem = (
            f"the role may do more than read, being or belonging to {some(row[0] for row in mighty)}, or a superuser"
        )
    cure = "Make a role of its own with include/meg/reader.sql, a member of no other, and name it in the connection."
    yield judged(subject, "rights", problem, fine="the role can only read", cure=cure)
    [(makes_tables,)] = meg.answer("SELECT has_schema_privilege('public', 'CREATE')")
    if makes_tables and not problem:
        found = "the role may make tables of its own in schema public, as everyone may until PostgreSQL 14"
        cure = "REVOKE CREATE ON SCHEMA public FROM PUBLIC, where MEG's own role owns the schema."
        yield Finding(subject, "rights: narrow", Verdict.WARNING, found, cure)


def _private_columns(subject: str, meg: Meg) -> Iterator[Finding]:
    """Whether the role may read more than the columns of include/meg/reader.sql, and above all what is private."""
    seen = [
        (f"{table}.{column}", private)
        for table, column, private in meg.answer(
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
    cure = (
        "Run include/meg/reader.sql, which lets the role read the columns that are needed; what PUBLIC or another role "
        "that it belongs to may read must be revoked there."
    )
    yield judged(
        subject,
        "private columns",
        f"the role may read {some(private)}" if private else "",
        fine="no e-mail address, no password, no patient",
        cure=cure,
    )
    if seen and not private:
        found = f"the role may also read {some(name for name, _ in seen)}, which no job needs"
        yield Finding(subject, "columns", Verdict.WARNING, found, cure)


@lru_cache
def _granted() -> frozenset[tuple[str, str]]:
    """The columns that include/meg/reader.sql grants, with their tables."""
    text = (include_folder() / "meg" / "reader.sql").read_text()
    grants = re.findall(r"GRANT SELECT \(([^)]*)\) ON (\w+) TO", text)
    return frozenset((table, column.strip()) for columns, table in grants for column in columns.split(","))


def _clock(subject: str, meg: Meg) -> Iterator[Finding]:
    before = datetime.now(timezone.utc)
    [(there,)] = meg.answer("SELECT clock_timestamp()")
    yield clock_finding(subject, before, there, datetime.now(timezone.utc))


def _timezone(subject: str, name: str, meg: Meg) -> Iterator[Finding]:
    check_timezone(meg, name, context=subject)
    yield Finding(subject, "time zone", Verdict.OK, f"the server has {name}")


def clock_finding(subject: str, before: datetime, there: datetime, after: datetime) -> Finding:
    """How far a server's clock is from this machine's, as it was told between two instants."""
    ahead = there - (before + (after - before) / 2)
    seconds = f"{abs(ahead.total_seconds()):.1f} s {'ahead of' if ahead > timedelta() else 'behind'} this machine's"
    problem = seconds if abs(ahead) > LARGEST_SKEW + (after - before) else ""
    cure = "Set both clocks by NTP: a submission near midnight may otherwise fall into another month."
    return judged(subject, "clock", problem, fine=seconds, cure=cure)


def _index(subject: str, name: str, meg: Meg) -> Iterator[Finding]:
    """Whether an index leads with the column by which a chunk's rows are looked up, whatever that is called in MEG."""
    relation, condition, statement = _PROBES[name]
    sql = f"SELECT 1 FROM ({render(f'source/{relation}.sql')}) AS relation WHERE {condition}"
    [(plan,)] = meg.answer(f"EXPLAIN (FORMAT JSON, VERBOSE) {sql}")
    table, column = _looked_up(plan[0]["Plan"])
    check = f"index: {name}"
    if not table:
        found = "how PostgreSQL finds them cannot be told from its plan"
        yield Finding(subject, check, Verdict.WARNING, found, f"See that MEG has what serves as {statement}.")
        return
    indexes = meg.answer(
        "SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " JOIN pg_am AS m ON m.oid = c.relam WHERE i.indrelid = %(table)s::regclass AND i.indisvalid"
        " AND m.amname = 'btree' AND i.indpred IS NULL AND pg_get_indexdef(i.indexrelid, 1, true) = %(column)s",
        {"table": table, "column": column},
    )
    problem = "" if indexes else f"no index of all of {table} leads with {column}: each chunk reads the whole table"
    cure = f"On MEG, as its owner: {statement}. Without it chunks cost about eighty times a single pass."
    yield judged(subject, check, problem, fine=some(row[0] for row in indexes), cure=cure)


def _looked_up(node: dict[str, Any]) -> tuple[str, str]:
    """The table, and its column, that a plan looks the probe's ids up in; empty where it does not say."""
    for text in ("Index Cond", "Recheck Cond", "Filter"):
        found = _ANY.search(node.get(text, ""))
        if found and "Relation Name" in node:
            return f'"{node["Schema"]}"."{node["Relation Name"]}"', found[1]
    for child in node.get("Plans", ()):
        if (found_below := _looked_up(child)) != ("", ""):
            return found_below
    return "", ""
