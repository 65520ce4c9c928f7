"""Tests that no cell of the reports' CSV becomes a formula, with any separator of a spreadsheet."""

from __future__ import annotations

import csv
import io
import time

import pytest

from bi_ops.reports.csv_text import csv_text, safe_cell
from bi_ops.reports.definitions import get_report
from bi_ops.reports.report_queries import ReportResult

pytestmark = pytest.mark.fast

DANGEROUS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "A;=1+1;B",
    "A; =1+1",
    "A|=1+1",
    "A,=1+1",
    "A\t=1+1",
    "A\n=1+1",
    "A\r\n\r\n=1+1",
    '"=1+1"',
    'A;"=1+1";B',
    "A;'=1+1",
    "  =1+1",
    "\u3000=1+1",
    "\x00=1+1",
    "\ufeff=1+1",
    "\uff1d1+1",
    "A;\uff0b1",
    "A\u2028@x",
]
HARMLESS = ["", "Ward 3", "a-b", "Smith - Jones", "x=1", "A; B, C | D", "jane@hospital", "it's"]


def is_formula(cell: str) -> bool:
    return cell.strip(' \x00\ufeff\u3000"\t').startswith(("=", "+", "-", "@", "\uff1d", "\uff0b"))


@pytest.mark.parametrize("text", DANGEROUS)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_formula_in_text_stays_text(text: str, separator: str) -> None:
    """The file is opened with each usual separator, and no cell of it is a formula."""
    report = get_report("top_users")
    row = {column.name: text if column.type == "text" else 1 for column in report.columns}
    lines = csv_text(report, ReportResult([row], truncated=False))
    cells = [cell for line in csv.reader(io.StringIO(lines, newline=""), delimiter=separator) for cell in line]
    assert len(cells) > len(report.columns) or separator != ","
    assert [cell for cell in cells if is_formula(cell)] == []
    assert str(safe_cell(text)).startswith("'")


@pytest.mark.parametrize("text", HARMLESS)
def test_csv_harmless_text_is_unchanged(text: str) -> None:
    """Texts that no separator turns into a formula are unchanged, and so are numbers."""
    assert safe_cell(text) == text
    assert safe_cell(-1) == -1


@pytest.mark.parametrize("part", ["\n", " ", "; ", '"', "=\n"])
def test_csv_hostile_text_takes_linear_time(part: str) -> None:
    """A text of several megabytes does not block the event loop."""
    began = time.monotonic()
    safe_cell(part * 1_000_000 + "x=")
    assert time.monotonic() - began < 5
