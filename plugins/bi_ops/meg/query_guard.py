"""Wraps a job's query so that MEG itself rejects values that no document may hold, before they are sent.

Otherwise a text of a gigabyte would be fetched before it is refused, and a time outside Python's range of years would
make its whole batch unreadable.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_TEXT_BYTES = 32 * 1024
"""The maximum size of a text field, in UTF-8."""
MAX_ARRAY_BYTES = 256 * 1024
"""The maximum size of all texts in an array together."""
PROBLEM_COLUMN = "_problem"
"""The last column of a guarded query: null, or `<column>: <problem>` for an invalid value in the row."""

_CHECKS = {
    "text": (
        f"octet_length({{column}}) > {MAX_TEXT_BYTES}",
        "octet_length({column}) || ' bytes of text'",
    ),
    "text[]": (
        f"octet_length(array_to_string({{column}}, '')) > {MAX_ARRAY_BYTES}",
        "octet_length(array_to_string({column}, '')) || ' bytes of text'",
    ),
    "timestamptz": (
        "NOT ({column} >= '0001-01-02Z' AND {column} < '9999-12-31Z')",
        "'a time outside the years 1 to 9999'",
    ),
}
_CHECKS |= {"varchar": _CHECKS["text"], "bpchar": _CHECKS["text"], "varchar[]": _CHECKS["text[]"]}


def describe(sql: str) -> str:
    """A query with the columns of `sql` and no rows."""
    return f"SELECT * FROM ({sql}\n) AS job LIMIT 0"


def guard(sql: str, columns: Sequence[str], types: Sequence[str]) -> str:
    """The query with the column `_problem` added; a value that no document may hold is null, and named there.

    Args:
        sql: The query.
        columns: The names of its columns.
        types: PostgreSQL's names of their types.
    """
    selected, problems = [], []
    for column, type_name in zip(columns, types, strict=True):
        name = f'job."{column}"'
        base_type, _, suffix = type_name.partition("(")
        check = _CHECKS.get(base_type + ("[]" if suffix.endswith("[]") else ""))
        if check is None:
            selected.append(name)
            continue
        is_invalid, problem = (part.format(column=name) for part in check)
        selected.append(f'CASE WHEN {is_invalid} THEN NULL ELSE {name} END AS "{column}"')
        problems.append(f"WHEN {is_invalid} THEN '{column}: ' || {problem}")
    problem_column = f"CASE {' '.join(problems)} END" if problems else "NULL::text"
    return f'SELECT {", ".join(selected)}, {problem_column} AS "{PROBLEM_COLUMN}" FROM ({sql}\n) AS job'
