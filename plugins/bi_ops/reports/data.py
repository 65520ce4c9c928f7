"""The rows of a report, read from the live database; nothing but the report's own file says what is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import ExecutionTimeout

from bi_ops.errors import ReportError
from bi_ops.jobs import JOBS
from bi_ops.reports.definitions import Report
from bi_ops.reports.filters import Filters, filter_fields

MOST_ROWS = 5_000
LONGEST_MS = 10_000
"""How long MongoDB may compute a report, in ms."""
_CHOICES = ("region", "institution", "form_type")


@dataclass(frozen=True)
class Rows:
    """What a report shows.

    Attributes:
        rows: Its rows, in their order.
        truncated: Whether there are more.
        period: The period that it is about, where it is about the latest.
    """

    rows: list[dict[str, Any]]
    truncated: bool
    period: str = ""


def read(database: Database[dict[str, Any]], report: Report, filters: Filters, timezone: str) -> Rows:
    """Compute a report.

    Args:
        database: The live database.
        report: The report.
        filters: What of its collection it is about.
        timezone: The settings' time zone.

    Raises:
        ReportError: A filter is not a value, or the report takes too long.
    """
    try:
        return _read(database, report, filters, timezone)
    except ExecutionTimeout:
        raise ReportError(
            "this takes too long to compute",
            where=f"report {report.name}",
            expected=f"at most {LONGEST_MS / 1000:g} s",
            cure="Choose fewer months, or make the indexes of include/mongo/indexes.json on the Atlas website.",
        ) from None


def _read(database: Database[dict[str, Any]], report: Report, filters: Filters, timezone: str) -> Rows:
    collection = database[report.collection]
    match = filters.match(report.job, timezone)
    period = ""
    if report.periods == "latest":
        last = collection.find_one(
            match, {"period": 1, "period_start": 1}, sort=[("period_start", -1)], max_time_ms=LONGEST_MS
        )
        if last is None:
            return Rows([], truncated=False)
        period = last["period"]
        match = {**match, "period_start": last["period_start"]}
    pipeline = [{"$match": match}, *report.pipeline, {"$limit": MOST_ROWS + 1}]
    found = list(collection.aggregate(pipeline, maxTimeMS=LONGEST_MS, allowDiskUse=False))
    names = [column.name for column in report.columns]
    rows = [{name: row.get(name) for name in names} for row in found[:MOST_ROWS]]
    return Rows(rows, len(found) > MOST_ROWS, period)


def choices(database: Database[dict[str, Any]]) -> Mapping[str, list[str]]:
    """What each filter may be set to: the values that the collections hold."""
    found: dict[str, set[str]] = {name: set() for name in _CHOICES}
    for job in JOBS:
        if job.name in ("institutions", "forms", "monthly_submissions"):
            fields = filter_fields(job)
            for name in set(_CHOICES) & set(fields):
                values = database[job.name].distinct(fields[name], maxTimeMS=LONGEST_MS)
                found[name] |= {value for value in values if isinstance(value, str)}
    return {name: sorted(values) for name, values in found.items()}
