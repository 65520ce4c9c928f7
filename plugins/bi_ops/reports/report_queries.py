"""Computes the rows of a report by running its aggregation pipeline on the live database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pymongo.database import Database

from bi_ops.catalog.jobs import JOBS, get_job
from bi_ops.mongo.store import LEDGER_COLLECTION, Document
from bi_ops.reports.coverage import Coverage, coverage_steps
from bi_ops.reports.definitions import Report
from bi_ops.reports.filters import Filters, filter_fields
from bi_ops.reports.loaded_periods import loaded_period_steps
from bi_ops.reports.query_execution import MAX_ROWS, Query, Steps, execute
from bi_ops.reports.slice_sums import RegionPeriod, SliceSums, Sums, match_ids

_FILTER_NAMES = ("region", "institution", "form_type")
_OPTION_SETS = Sums(
    get_job("monthly_submissions"),
    {"institution": {"$addToSet": "$institution_name"}, "form_type": {"$addToSet": "$form_type"}},
    context="the filters",
)


@dataclass(frozen=True)
class ReportResult:
    """The result of a report.

    Attributes:
        rows: Its rows, in their order.
        truncated: Whether there are more.
        period: The period that it shows, if it shows only the latest.
        coverage: The periods that are loaded, for a collection that has periods.
    """

    rows: list[dict[str, Any]]
    truncated: bool
    period: str = ""
    coverage: Coverage = field(default_factory=Coverage)


def run_report(
    database: Database[Document], report: Report, filters: Filters, current_regions: Collection[str] | None = None
) -> ReportResult:
    """Compute a report with a blocking client.

    Args:
        database: The live database.
        report: The report.
        filters: The filters.
        current_regions: The regions of the settings, of which new periods are expected; by default of all.

    Raises:
        ReportError: A filter is invalid, or the report takes too long.
    """
    return execute(database, report_steps(report, filters, current_regions))


def report_steps(
    report: Report, filters: Filters, current_regions: Collection[str] | None = None, *, all_rows: bool = False
) -> Steps[ReportResult]:
    """The queries that compute a report.

    Args:
        report: The report.
        filters: The filters.
        current_regions: The regions of the settings, of which new periods are expected; by default of all.
        all_rows: Whether to compute also the rows that the chart leaves out.

    Raises:
        ReportError: A filter is invalid.
    """
    context = f"report {report.name}"
    match = filters.match(report.job)
    period = ""
    if report.periods == "latest":
        latest = yield from _latest_steps(report, filters, match)
        if latest is None:
            return ReportResult([], truncated=False)
        period, match = latest
    # Who selects institutions wants to see them, and not those of them that are among the first.
    selection = [] if all_rows or filters.institutions else report.selection
    pipeline: list[dict[str, Any]] = [{"$match": match}, *report.pipeline, *selection, {"$limit": MAX_ROWS + 1}]
    rows = yield Query(report.collection, pipeline, context)
    has_periods = "period" in filter_fields(report.job) and not all_rows
    coverage = (yield from coverage_steps(report.job, filters, current_regions)) if has_periods else Coverage()
    names = [column.name for column in report.columns]
    result_rows = [{name: row.get(name) for name in names} for row in rows[:MAX_ROWS]]
    return ReportResult(result_rows, len(rows) > MAX_ROWS, period, coverage)


def _latest_steps(report: Report, filters: Filters, match: Document) -> Steps[tuple[str, Document] | None]:
    """The queries for the last period with documents that match, and the filter for these; None if there is none."""
    coverage = yield from coverage_steps(report.job, filters)
    for period in reversed(coverage.axis):
        slices = [RegionPeriod(region, period) for region in coverage.regions if coverage.has(period, region)]
        of_period = {**match, "period": period, **match_ids(slices)}
        pipeline: list[Document] = [{"$match": of_period}, {"$limit": 1}, {"$project": {"_id": 1}}]
        if slices and (yield Query(report.collection, pipeline, f"report {report.name}")):
            return period, of_period
    return None


def filter_option_steps(slice_sums: SliceSums | None = None) -> Steps[Mapping[str, list[str]]]:
    """The queries for each filter's options: the values in the collections.

    Args:
        slice_sums: The sums of slices that were read before.
    """
    options: dict[str, set[str]] = {name: set() for name in _FILTER_NAMES}
    for job in JOBS:
        if job.name in ("institutions", "forms"):
            fields = filter_fields(job)
            for name in set(_FILTER_NAMES) & set(fields):
                rows = yield Query(job.name, [{"$group": {"_id": f"${fields[name]}"}}], "the filters")
                options[name] |= {row["_id"] for row in rows if isinstance(row["_id"], str)}
    loaded = yield from loaded_period_steps(_OPTION_SETS.job, Filters())
    sets = yield from (slice_sums or SliceSums()).steps(_OPTION_SETS, Filters(), loaded, loaded.coverage.axis)
    for (region, _), rows in sets.items():
        for row in rows:
            options["region"].add(region)
            for name in _OPTION_SETS.sums:
                options[name] |= {value for value in row[name] if isinstance(value, str)}
    return {name: sorted(values) for name, values in options.items()}


def institution_steps() -> Steps[list[dict[str, Any]]]:
    """The query for every institution with its region, so that a choice of regions narrows the institutions offered."""
    project = {"_id": 0, "region": 1, "institution_id": 1, "name": 1}
    pipeline = [{"$project": project}, {"$sort": {"name": 1, "region": 1, "institution_id": 1}}]
    rows = yield Query("institutions", pipeline, "the filters")
    return rows


def first_month_steps() -> Steps[str]:
    """The query for the first month that is loaded of any region; empty if none is."""
    match = {"job": "monthly_submissions", "published_at": {"$ne": None}}
    rows = yield Query(LEDGER_COLLECTION, [{"$match": match}, {"$group": {"_id": None, "first": {"$min": "$period"}}}])
    return rows[0]["first"] or "" if rows else ""
