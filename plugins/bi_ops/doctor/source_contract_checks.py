"""Checks the relations of include/sql/source/ on a region's MEG: required columns, and one row for each key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

from bi_ops.catalog.source_contract import KEYS, SOURCE_CONTRACT, contract_violations
from bi_ops.catalog.sql_templates import render_sql
from bi_ops.doctor.results import Finding, Status, check_result
from bi_ops.errors import SourceQueryError, SourceUnavailableError
from bi_ops.meg.reader import MegReader

_KEY_SECONDS = 30
"""The time limit for the keys of one relation; past it they are reported as not checked."""
_ALL_KEYS_SECONDS = 120
"""The time limit for the keys of all relations; past it each of the others has a second."""


def check_source_contract(subject: str, meg: MegReader) -> Iterator[Finding]:
    """Check each relation's columns, and then the keys of those that have them."""
    results = {name: _columns(subject, name, meg) for name in SOURCE_CONTRACT}
    broken = [result for result in results.values() if isinstance(result, Finding)]
    yield from broken
    if not broken:
        yield Finding(subject, "required columns", Status.OK, f"present in all {len(SOURCE_CONTRACT)} relations")
    deadline = time.monotonic() + _ALL_KEYS_SECONDS
    for name, table_oid in results.items():
        if not isinstance(table_oid, Finding):
            seconds = max(1, min(_KEY_SECONDS, round(deadline - time.monotonic())))
            yield from _key(subject, name, meg, table_oid, seconds)


def _columns(subject: str, name: str, meg: MegReader) -> Finding | int:
    """The OID of the table that has a relation's key, or the problem with its columns; reads no row."""
    problem = actual = ""
    hint = f"Adapt include/sql/source/{name}.sql to this MEG's schema."
    try:
        with meg.query(f"SELECT * FROM ({render_sql(f'source/{name}.sql')}) AS relation LIMIT 0", {}) as result:
            columns = dict(zip(result.columns, result.types, strict=True))
    except SourceQueryError as error:
        problem, actual = f"the relation {name} cannot be read", error.actual
        if "permission denied" in actual:
            hint = "Run include/meg/reader_role.sql, which grants the missing privileges."
    else:
        actual = "; ".join(contract_violations(name, columns))
        problem = f"the columns of the relation {name} do not match" if actual else ""
    if problem:
        expected = f"the columns {', '.join(SOURCE_CONTRACT[name])}"
        return Finding(subject, f"required columns: {name}", Status.FAILED, problem, expected, actual, hint)
    return result.table_oids[result.columns.index(KEYS[name])]


def _key(subject: str, name: str, meg: MegReader, table_oid: int, seconds: int) -> Iterator[Finding]:
    """Whether a relation has one row for each key; reads only its key."""
    check, key = f"unique key: {name}", KEYS[name]
    sql = (
        "SELECT coalesce(sum(rows), 0)::bigint, count(*) FILTER (WHERE rows > 1), coalesce(max(rows), 0),"
        f" count(*) FILTER (WHERE key IS NULL) FROM (SELECT {key} AS key, count(*) AS rows"
        f" FROM ({render_sql(f'source/{name}.sql')}) AS relation GROUP BY {key}) AS keys"
    )
    try:
        with meg.with_statement_timeout(timedelta(seconds=seconds)):
            [(rows, duplicates, max_rows, nulls)] = meg.fetch_all(sql, {})
    except SourceUnavailableError as error:
        yield Finding(
            subject,
            check,
            Status.WARNING,
            f"not checked within {seconds} s",
            expected="time to count all keys",
            actual=error.actual,
            hint=f"On MEG, count the values of {key} that include/sql/source/{name}.sql returns more than once.",
        )
        return
    problem = f"{duplicates:,} values of {key} occur more than once, up to {max_rows:,} times" if duplicates else ""
    counts = f"{rows:,} rows{_table_estimate(meg, table_oid)}"
    yield check_result(
        subject,
        check,
        f"{key} is null" if nulls else problem,
        ok_message=f"{key} is unique; {counts}",
        expected=f"one row for each {key}; else counts are too high",
        actual=counts,
        hint=f"Correct the joins of include/sql/source/{name}.sql so that each {key} has one row.",
    )


def _table_estimate(meg: MegReader, table_oid: int) -> str:
    """PostgreSQL's estimate of the rows of the key's table; empty if it has none."""
    rows = meg.fetch_all(
        "SELECT oid::regclass::text, reltuples::bigint FROM pg_class WHERE oid = %(oid)s::bigint AND reltuples >= 0"
        " AND relkind IN ('r', 'p', 'm')",
        {"oid": table_oid},
    )
    return "".join(f", of about {estimate:,} in {table}" for table, estimate in rows)
