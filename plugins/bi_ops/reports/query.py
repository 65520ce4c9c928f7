"""The rows of a report, read from the live database; nothing but the report's own file says what is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database

from bi_ops.catalog.jobs import JOBS
from bi_ops.mongo.store import Document
from bi_ops.reports.definitions import Report
from bi_ops.reports.execution import MAX_ROWS, Query, Steps, execute
from bi_ops.reports.filters import Filters, filter_fields

_CHOICES = ("region", "institution", "form_type")


@dataclass(frozen=True)
class ReportResult:
    """What a report shows.

    Attributes:
        rows: Its rows, in their order.
        truncated: Whether there are more.
        period: The period that it is about, where it is about the latest.
    """

    rows: list[dict[str, Any]]
    truncated: bool
    period: str = ""


def run_report(database: Database[Document], report: Report, filters: Filters) -> ReportResult:
    """Compute a report with a blocking client.

    Args:
        database: The live database.
        report: The report.
        filters: What of its collection it is about.

    Raises:
        ReportError: A filter is not a value, or the report takes too long.
    """
    return execute(database, report_steps(report, filters))


def report_steps(report: Report, filters: Filters) -> Steps[ReportResult]:
    """The queries that compute a report.

    Args:
        report: The report.
        filters: What of its collection it is about.

    Raises:
        ReportError: A filter is not a value.
    """
    context = f"report {report.name}"
    match = filters.match(report.job)
    period = ""
    if report.periods == "latest":
        latest = yield Query(
            report.collection,
            [{"$match": match}, {"$sort": {"period": -1}}, {"$limit": 1}, {"$project": {"period": 1}}],
            context,
        )
        if not latest:
            return ReportResult([], truncated=False)
        period = latest[0]["period"]
        match = {**match, "period": period}
    rows = yield Query(report.collection, [{"$match": match}, *report.pipeline, {"$limit": MAX_ROWS + 1}], context)
    names = [column.name for column in report.columns]
    shown = [{name: row.get(name) for name in names} for row in rows[:MAX_ROWS]]
    return ReportResult(shown, len(rows) > MAX_ROWS, period)


def choice_steps() -> Steps[Mapping[str, list[str]]]:
    """The queries for what each filter may be set to: the values that the collections hold."""
    found: dict[str, set[str]] = {name: set() for name in _CHOICES}
    for job in JOBS:
        if job.name in ("institutions", "forms", "monthly_submissions"):
            fields = filter_fields(job)
            for name in set(_CHOICES) & set(fields):
                rows = yield Query(job.name, [{"$group": {"_id": f"${fields[name]}"}}], "the filters")
                found[name] |= {row["_id"] for row in rows if isinstance(row["_id"], str)}
    return {name: sorted(values) for name, values in found.items()}
