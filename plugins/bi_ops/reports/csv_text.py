"""A report's rows as CSV that no spreadsheet runs as a formula."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from bi_ops.reports.data import Rows
from bi_ops.reports.definitions import Report

_SEPARATORS = r"[,;|\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"
_IGNORED = r"[\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2060\ufeff\"'\u2018-\u201f]"
_FORMULA = r"[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212]"
"""ASCII's, and their full-width and small forms, which spreadsheets of East Asia take for the same."""
_STARTS = re.compile(f"(?:^|(?<={_SEPARATORS}))(?={_IGNORED}*{_FORMULA})")


def csv_text(report: Report, found: Rows) -> str:
    """The rows as RFC 4180 has it, with each cell that could become a formula quoted as text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    names = [column.name for column in report.columns]
    writer.writerow(names)
    for row in found.rows:
        writer.writerow([safe_cell(row[name]) for name in names])
    return buffer.getvalue()


def safe_cell(value: Any) -> Any:
    """The value, quoted as text with an apostrophe where a spreadsheet could run it as a formula.

    Nobody knows which separator the file is opened with, so each part that any usual one would make a cell of its own
    is quoted, and the whole cell with it.
    """
    if not isinstance(value, str):
        return value
    quoted = _STARTS.sub("'", value)
    return quoted if quoted == value or quoted.startswith("'") else f"'{quoted}"
