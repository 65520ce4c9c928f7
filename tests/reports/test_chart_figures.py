"""Compares every figure of the charts with its definition in plain Python, over generated documents and filters."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from pymongo.database import Database

from bi_ops.reports.definitions import Report, load_reports
from bi_ops.reports.filters import Filters
from bi_ops.reports.query_execution import execute
from bi_ops.reports.report_queries import report_steps, run_report
from tests.reports.figure_documents import EXAMPLE_SETTINGS, Rows, filters, insert_rows, published_documents
from tests.reports.plain_charts import ROWS, SHOWN
from tests.reports.plain_figures import PlainFigures


@settings(EXAMPLE_SETTINGS, max_examples=25)
@given(rows=published_documents(small_clients=24), filters=filters())
def test_charts_equal_plain_python(database: Database[dict[str, Any]], rows: Rows, filters: Filters) -> None:
    """The rows of every chart equal its definition, in their order, with every filter."""
    insert_rows(database, rows)
    plain = PlainFigures(rows, filters)
    for report in load_reports():
        check_report(database, report, plain)


def check_report(database: Database[dict[str, Any]], report: Report, plain: PlainFigures) -> None:
    name = "name" if report.collection in ("institutions", "security_risk_clients") else "institution_name"
    documents = plain.documents(report.collection, name)
    periods = "period" in (plain.rows[report.collection] or [{}])[0]
    if periods:
        documents = [row for row in documents if plain.selects(row["period"])]
    period = ""
    if report.periods == "latest":
        period = max((row["period"] for row in documents), default="")
        documents = [row for row in documents if row["period"] == period]
    expected = ROWS[report.name](documents)
    everything = execute(database, report_steps(report, plain.filters, all_rows=True))
    assert (everything.rows, everything.period) == (expected, period), report.name
    chart = run_report(database, report, plain.filters)
    select = SHOWN.get(report.name) if not plain.filters.institutions else None
    assert (chart.rows, chart.period) == (select(expected) if select else expected, period), report.name
    if periods and (documents or report.periods == "all"):
        loaded = set().union(*plain.loaded[report.collection].values())
        lacking = {month: plain.lacking(report.collection, month) for month in loaded if plain.selects(month)}
        assert chart.coverage.partial == {month: regions for month, regions in lacking.items() if regions}, report.name
