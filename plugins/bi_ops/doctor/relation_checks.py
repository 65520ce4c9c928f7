"""The relations of include/sql/source/ in a region's MEG: whether each has its columns, and one row for each key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

from bi_ops.catalog.source_contract import KEYS, SOURCE_CONTRACT, contract_violations
from bi_ops.catalog.sql import render_sql
from bi_ops.doctor.results import Finding, Status, check_result
from bi_ops.errors import SourceQueryError, SourceUnavailableError
from bi_ops.meg.reader import MegReader

_KEY_SECONDS = 30
"""How long the keys of one relation are counted before it is reported as not checked."""
_ALL_KEYS_SECONDS = 120
"""How long the keys of all relations together; those that are left have a second each."""


def check_relations(subject: str, meg: MegReader) -> Iterator[Finding]:
    """Check each relation's columns, and then the keys of those that have them."""
    results = {name: _columns(subject, name, meg) for name in SOURCE_CONTRACT}
    broken = [result for result in results.values() if isinstance(result, Finding)]
    yield from broken
    if not broken:
        yield Finding(
            subject, "relations", Status.OK, f"all {len(SOURCE_CONTRACT)} have the columns that the jobs read"
        )
    deadline = time.monotonic() + _ALL_KEYS_SECONDS
    for name, table_oid in results.items():
        if not isinstance(table_oid, Finding):
            seconds = max(1, min(_KEY_SECONDS, round(deadline - time.monotonic())))
            yield from _key(subject, name, meg, table_oid, seconds)


def _columns(subject: str, name: str, meg: MegReader) -> Finding | int:
    """The OID of the table that a relation's key is read from, or what is wrong with its columns; no row is read."""
    check = f"relation {name}"
    hint = f"Fit include/sql/source/{name}.sql to this MEG's schema."
    try:
        with meg.query(f"SELECT * FROM ({render_sql(f'source/{name}.sql')}) AS relation LIMIT 0", {}) as result:
            columns = dict(zip(result.columns, result.types, strict=True))
    except SourceQueryError as error:
        if "permission denied" in error.actual:
            hint = "Run include/meg/reader_role.sql: the role may not read all that it must."
        return Finding(subject, check, Status.FAILED, error.actual, hint)
    if broken := contract_violations(name, columns):
        return Finding(subject, check, Status.FAILED, "; ".join(broken), hint)
    return result.table_oids[result.columns.index(KEYS[name])]


def _key(subject: str, name: str, meg: MegReader, table_oid: int, seconds: int) -> Iterator[Finding]:
    """Whether a relation has one row for each key; only its key is read."""
    check, key = f"key of {name}", KEYS[name]
    sql = (
        "SELECT coalesce(sum(rows), 0)::bigint, count(*) FILTER (WHERE rows > 1), coalesce(max(rows), 0),"
        f" count(*) FILTER (WHERE key IS NULL) FROM (SELECT {key} AS key, count(*) AS rows"
        f" FROM ({render_sql(f'source/{name}.sql')}) AS relation GROUP BY {key}) AS keys"
    )
    try:
        with meg.with_statement_timeout(timedelta(seconds=seconds)):
            [(rows, doubled, most, empty)] = meg.fetch_all(sql, {})
    except SourceUnavailableError as error:
        found = f"not checked within {seconds} s ({error.actual})"
        hint = f"On MEG, count the values of {key} that include/sql/source/{name}.sql gives more than once."
        yield Finding(subject, check, Status.WARNING, found, hint)
        return
    problem = f"{doubled:,} values of {key} occur more than once, up to {most:,} times" if doubled else ""
    problem = f"{key} is null" if empty else problem
    counts = f"{rows:,} rows{_of_table(meg, table_oid)}"
    hint = (
        f"Correct the joins of include/sql/source/{name}.sql so that each {key} gives one row; until then counts are "
        "too high."
    )
    yield check_result(
        subject, check, f"{problem}; {counts}" if problem else "", ok_message=f"{key} is unique; {counts}", hint=hint
    )


def _of_table(meg: MegReader, table_oid: int) -> str:
    """The rows of the table that a key is read from, as PostgreSQL estimates them; empty where it does not know."""
    rows = meg.fetch_all(
        "SELECT oid::regclass::text, reltuples::bigint FROM pg_class WHERE oid = %(oid)s::bigint AND reltuples >= 0"
        " AND relkind IN ('r', 'p', 'm')",
        {"oid": table_oid},
    )
    return "".join(f", of about {estimate:,} in {table}" for table, estimate in rows)
