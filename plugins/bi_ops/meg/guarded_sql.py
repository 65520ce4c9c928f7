"""Guards around a job's query: values that no document may hold are marked inside MEG and never sent.

A text of a gigabyte would else be fetched before it is refused, and a time outside the years that Python knows would
break the reading of its whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_TEXT_BYTES = 32 * 1024
"""The longest text of a field, in UTF-8."""
MAX_ARRAY_BYTES = 256 * 1024
"""The longest list of texts, all together."""
PROBLEM_COLUMN = "_problem"
"""The last column of a guarded query: null, or what is wrong with a value of the row, after the column's name."""

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
    """A query that has the columns of another one, and no row."""
    return f"SELECT * FROM ({sql}\n) AS job LIMIT 0"


def guard(sql: str, columns: Sequence[str], types: Sequence[str]) -> str:
    """A query with one column more, in which a value that no document may hold is null and named in that column.

    Args:
        sql: The query.
        columns: The names of its columns.
        types: PostgreSQL's names of their types.
    """
    selected, problems = [], []
    for column, type_name in zip(columns, types, strict=True):
        name = f'job."{column}"'
        base, _, rest = type_name.partition("(")
        check = _CHECKS.get(base + ("[]" if rest.endswith("[]") else ""))
        if check is None:
            selected.append(name)
            continue
        is_wrong, problem = (part.format(column=name) for part in check)
        selected.append(f'CASE WHEN {is_wrong} THEN NULL ELSE {name} END AS "{column}"')
        problems.append(f"WHEN {is_wrong} THEN '{column}: ' || {problem}")
    found = f"CASE {' '.join(problems)} END" if problems else "NULL::text"
    return f'SELECT {", ".join(selected)}, {found} AS "{PROBLEM_COLUMN}" FROM ({sql}\n) AS job'
