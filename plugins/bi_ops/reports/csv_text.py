"""Writes rows as CSV in which no spreadsheet runs a cell as a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bi_ops.reports.definitions import Report
from bi_ops.reports.report_queries import ReportResult

_SEPARATOR = r"[,;|\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"
_IGNORED = (
    r"[ \x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\xa0\u00ad\u1680\u2000-\u200f\u202f\u205f\u2060\u3000\ufeff"
    r"\"'\u2018-\u201f]"
)
"""Blanks, control characters and quotes, which a spreadsheet may drop; without separators, to search in linear time."""
_SIGN = r"[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212]"
"""What begins a formula: ASCII signs, and their full-width and small forms, which East Asian versions also accept."""
_ANY_SIGN = re.compile(_SIGN)
_FORMULA = re.compile(f"(^|{_SEPARATOR})(?={_IGNORED}*{_SIGN})")


def csv_text(report: Report, result: ReportResult) -> str:
    """A report's rows as CSV."""
    return csv_lines([column.name for column in report.columns], result.rows)


def csv_lines(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as CSV (RFC 4180), with each cell that could become a formula quoted as text.

    It begins with a byte-order mark: without one Excel takes UTF-8 for a legacy encoding and breaks accents.
    """
    buffer = io.StringIO()
    buffer.write("\ufeff")
    writer = csv.writer(buffer)
    writer.writerow(names)
    for row in rows:
        writer.writerow([safe_cell(row[name]) for name in names])
    return buffer.getvalue()


def safe_cell(value: Any) -> Any:
    """The value, quoted as text with an apostrophe where a spreadsheet could run it as a formula.

    The separator with which the file is opened is unknown, so each part that any usual one would make a cell of its own
    is quoted, and the whole cell with it.
    """
    if not isinstance(value, str):
        return value
    value = value.replace("\x00", "")  # Python 3.10 cannot write it, and no text of PostgreSQL has it
    if not _ANY_SIGN.search(value):
        return value
    quoted = _FORMULA.sub(r"\1'", value)
    return quoted if quoted == value or quoted.startswith("'") else f"'{quoted}"
