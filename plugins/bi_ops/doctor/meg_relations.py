"""The relations of include/sql/source/ in a region's MEG: whether each has its columns, and one row for each key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

from bi_ops.doctor.findings import Finding, Verdict, judged
from bi_ops.errors import SourceQueryError, SourceUnavailableError
from bi_ops.relations import KEYS, RELATIONS, broken_promises
from bi_ops.source import Meg
from bi_ops.templates import render

_KEY_SECONDS = 30
"""How long the keys of one relation are counted before it is reported as not checked."""
_ALL_KEYS_SECONDS = 120
"""How long the keys of all relations together; those that are left have a second each."""


def check_relations(subject: str, meg: Meg) -> Iterator[Finding]:
    """Check each relation's columns, and then the keys of those that have them."""
    table_oids: dict[str, int] = {}
    broken = [finding for name in RELATIONS for finding in _columns(subject, name, meg, table_oids)]
    yield from broken
    if not broken:
        yield Finding(subject, "relations", Verdict.OK, f"all {len(RELATIONS)} have the columns that the jobs read")
    deadline = time.monotonic() + _ALL_KEYS_SECONDS
    for name, table_oid in table_oids.items():
        seconds = max(1, min(_KEY_SECONDS, round(deadline - time.monotonic())))
        yield from _key(subject, name, meg, table_oid, seconds)


def _columns(subject: str, name: str, meg: Meg, table_oids: dict[str, int]) -> Iterator[Finding]:
    """What keeps a relation from being read with the columns that it must have; not one row of it is read.

    Where nothing does, the table from which its key is read is noted in `table_oids`.
    """
    check = f"relation {name}"
    cure = f"Fit include/sql/source/{name}.sql to this MEG's schema."
    try:
        with meg.query(f"SELECT * FROM ({render(f'source/{name}.sql')}) AS relation LIMIT 0", {}) as result:
            columns = dict(zip(result.columns, result.types, strict=True))
    except SourceQueryError as error:
        if "permission denied" in error.found:
            cure = "Run include/meg/reader.sql: the role may not read all that it must."
        yield Finding(subject, check, Verdict.FAILED, error.found, cure)
        return
    if broken := broken_promises(name, columns):
        yield Finding(subject, check, Verdict.FAILED, "; ".join(broken), cure)
        return
    table_oids[name] = result.table_oids[result.columns.index(KEYS[name])]


def _key(subject: str, name: str, meg: Meg, table_oid: int, seconds: int) -> Iterator[Finding]:
    """Whether a relation has one row for each key; only its key is read."""
    check, key = f"key of {name}", KEYS[name]
    sql = (
        "SELECT coalesce(sum(rows), 0)::bigint, count(*) FILTER (WHERE rows > 1), coalesce(max(rows), 0),"
        f" count(*) FILTER (WHERE key IS NULL) FROM (SELECT {key} AS key, count(*) AS rows"
        f" FROM ({render(f'source/{name}.sql')}) AS relation GROUP BY {key}) AS keys"
    )
    try:
        with meg.limited(timedelta(seconds=seconds)):
            [(rows, doubled, most, empty)] = meg.answer(sql, {})
    except SourceUnavailableError as error:
        found = f"not checked within {seconds} s ({error.found})"
        cure = f"On MEG, count the values of {key} that include/sql/source/{name}.sql gives more than once."
        yield Finding(subject, check, Verdict.WARNING, found, cure)
        return
    problem = f"{doubled:,} values of {key} occur more than once, up to {most:,} times" if doubled else ""
    problem = f"{key} is null" if empty else problem
    counts = f"{rows:,} rows{_of_table(meg, table_oid)}"
    cure = (
        f"Correct the joins of include/sql/source/{name}.sql so that each {key} gives one row; until then counts are "
        "too high."
    )
    yield judged(
        subject, check, f"{problem}; {counts}" if problem else "", fine=f"{key} is unique; {counts}", cure=cure
    )


def _of_table(meg: Meg, table_oid: int) -> str:
    """The rows of the table that a key is read from, as PostgreSQL estimates them; empty where it does not know."""
    rows = meg.answer(
        "SELECT oid::regclass::text, reltuples::bigint FROM pg_class WHERE oid = %(oid)s::bigint AND reltuples >= 0"
        " AND relkind IN ('r', 'p', 'm')",
        {"oid": table_oid},
    )
    return "".join(f", of about {estimate:,} in {table}" for table, estimate in rows)
