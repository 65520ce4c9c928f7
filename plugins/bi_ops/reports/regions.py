"""Compares the regions: growth by month, quarter and year, retention, and the platforms that submissions come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bi_ops.mongo.store import Document
from bi_ops.reports.attention import percent, percent_change
from bi_ops.reports.filters import Filters
from bi_ops.reports.loaded_periods import (
    LoadedPeriods,
    loaded_period_steps,
    previous_period,
    trailing_periods,
    year_before,
)
from bi_ops.reports.query_execution import Query, Steps
from bi_ops.reports.slice_sums import SliceSums, Sums, SumsBySlice
from bi_ops.reports.usage import CHURN, INSTITUTIONS, SESSION_SUMS, SESSIONS, SUBMISSIONS

ALL_REGIONS = ""
PLATFORMS = ("web", "ios", "android", "public")
STATUSES = ("retained", "churned", "new", "reactivated", "dormant", "never_used")
_YEAR = 12
_CONTEXT = "the regions"
_SUM = {"$sum": "$submissions"}
_SUBMISSION_SUMS = Sums(SUBMISSIONS, {"submissions": _SUM}, context=_CONTEXT)
_PLATFORM_SUMS = Sums(
    SUBMISSIONS, {name: {"$sum": f"$submissions_by_platform.{name}"} for name in PLATFORMS}, context=_CONTEXT
)
_STATUS_SUMS = Sums(CHURN, {"submissions": _SUM, "forms": {"$sum": 1}}, "status", _CONTEXT)

RegionSums = Mapping[tuple[str, str], Document]
"""Sums of documents by region and period."""


@dataclass(frozen=True)
class RegionFigures:
    """One region, or all selected ones together; None is unknown, and every change is in %.

    Attributes:
        region: Its name; empty for all selected regions together.
        clients: Its clients.
        active_clients: Those that are clients now.
        month: Its newest month with `submissions`, `change_month` and `change_year`.
        quarter: Its newest quarter with `submissions`, `change_quarter` and `change_year`.
        year: The twelve months up to that month with `submissions` and their `change` on the twelve before.
        series: Each month with submissions, sessions and the regions that lack it.
        retention: Each quarter with the number of forms by status, their retention and churn, and the regions that lack
            it.
        platforms: The submissions of the month by platform.
    """

    region: str
    clients: int | None
    active_clients: int | None
    month: dict[str, Any]
    quarter: dict[str, Any]
    year: dict[str, Any]
    series: list[dict[str, Any]]
    retention: list[dict[str, Any]]
    platforms: dict[str, int | None]


@dataclass(frozen=True)
class Regions:
    """All selected regions.

    Attributes:
        month: The newest month that all have.
        quarter: The newest quarter that all have.
        regions: All together, then each.
    """

    month: str | None
    quarter: str | None
    regions: list[RegionFigures]


@dataclass(frozen=True)
class _Measure:
    """The sums of one collection, of the periods that are loaded.

    Attributes:
        loaded: The loaded periods.
        sums: The sums of each region and period.
    """

    loaded: LoadedPeriods
    sums: RegionSums

    def total(self, region: str, period: str | None, name: str) -> int | None:
        """The sum of a region's period, or that of the regions which have it; None if none has."""
        regions = [region] if region else self.loaded.coverage.regions
        having = [each for each in regions if period and self.loaded.has(period, each)]
        return sum(self.sums.get((each, str(period)), {}).get(name, 0) for each in having) if having else None

    def common_total(self, region: str, period: str | None, name: str) -> int | None:
        """The sum of a period that the region, or every selected region, has."""
        return self.total(region, period, name) if period and self.loaded.has(period, region) else None

    def year_total(self, region: str, months: Sequence[str], name: str) -> int | None:
        """The sum of these months; None unless each is loaded."""
        totals = [self.common_total(region, month, name) for month in months]
        known = [total for total in totals if total is not None]
        return sum(known) if known and len(known) == len(totals) else None


@dataclass(frozen=True)
class _Measures:
    """What the figures are computed from; platforms only of each region's newest month."""

    submissions: _Measure
    platforms: _Measure
    sessions: _Measure
    quarters: _Measure


def region_steps(filters: Filters, slice_sums: SliceSums | None = None) -> Steps[Regions]:
    """The queries for the comparison of the regions.

    Args:
        filters: The filters.
        slice_sums: The sums of slices that were read before.

    Raises:
        ReportError: A filter is invalid.
    """
    slice_sums = slice_sums or SliceSums()
    months = yield from loaded_period_steps(SUBMISSIONS, filters)
    sessions_loaded = yield from loaded_period_steps(SESSIONS, filters)
    quarters_loaded = yield from loaded_period_steps(CHURN, filters)
    project = {"_id": 0, "region": 1, "is_active": 1}
    institutions = yield Query(
        "institutions", [{"$match": filters.match(INSTITUTIONS)}, {"$project": project}], _CONTEXT
    )
    needed = _needed_months(months)
    newest = sorted({month for region in (ALL_REGIONS, *months.coverage.regions) if (month := months.newest(region))})
    submissions = yield from slice_sums.steps(_SUBMISSION_SUMS, filters, months, needed)
    by_platform = yield from slice_sums.steps(_PLATFORM_SUMS, filters, months, newest)
    sessions = yield from slice_sums.steps(SESSION_SUMS, filters, sessions_loaded, needed)
    quarters = yield from slice_sums.steps(_STATUS_SUMS, filters, quarters_loaded, quarters_loaded.coverage.axis)
    measures = _Measures(
        _Measure(months, _sums(submissions)),
        _Measure(months, _sums(by_platform)),
        _Measure(sessions_loaded, _sums(sessions)),
        _Measure(quarters_loaded, _quarter_sums(quarters)),
    )
    names = [ALL_REGIONS, *months.coverage.regions]
    return Regions(months.newest(), quarters_loaded.newest(), [_region(name, institutions, measures) for name in names])


def _needed_months(months: LoadedPeriods) -> list[str]:
    """The shown months, and each region's last two years, which are compared."""
    newest = {months.newest(region) for region in (ALL_REGIONS, *months.coverage.regions)}
    compared = {name for month in newest if month for name in trailing_periods(month, 2 * _YEAR)}
    return sorted(compared | set(months.shown()))


def _sums(rows: SumsBySlice) -> RegionSums:
    return {slice_: row for slice_, slice_rows in rows.items() for row in slice_rows}


def _quarter_sums(rows: SumsBySlice) -> RegionSums:
    """The submissions, and the forms of each status, from the sums by status."""
    sums: dict[tuple[str, str], Document] = defaultdict(lambda: defaultdict(int))
    for slice_, by_status in rows.items():
        for row in by_status:
            sums[slice_]["submissions"] += row["submissions"]
            sums[slice_][row["status"]] += row["forms"]
    return sums


def _region(region: str, institutions: Sequence[Document], measures: _Measures) -> RegionFigures:
    own = [document for document in institutions if region in (ALL_REGIONS, document["region"])]
    months, quarters = measures.submissions.loaded, measures.quarters.loaded
    return RegionFigures(
        region,
        len(own) or None,
        sum(bool(document.get("is_active")) for document in own) if own else None,
        _growth(measures.submissions, region, "change_month"),
        _growth(measures.quarters, region, "change_quarter"),
        _year(measures.submissions, region),
        [_point(measures, region, period) for period in months.shown(region)],
        [_retention(measures.quarters, region, name) for name in quarters.shown(region) if quarters.has(name, region)],
        {name: measures.platforms.common_total(region, months.newest(region), name) for name in PLATFORMS},
    )


def _growth(measure: _Measure, region: str, change_name: str) -> dict[str, Any]:
    """The submissions of the newest period, and their change on the one before and on that of a year before."""
    period = measure.loaded.newest(region)
    now = measure.common_total(region, period, "submissions")
    before = measure.common_total(region, period and previous_period(period), "submissions")
    year_ago = measure.common_total(region, period and year_before(period), "submissions")
    changes = {change_name: percent_change(now, before), "change_year": percent_change(now, year_ago)}
    return {"period": period, "submissions": now, **changes}


def _year(submissions: _Measure, region: str) -> dict[str, Any]:
    month = submissions.loaded.newest(region)
    if month is None:
        return {"periods": [], "submissions": None, "change": None}
    months = trailing_periods(month, 2 * _YEAR)
    last = submissions.year_total(region, months[_YEAR:], "submissions")
    before = submissions.year_total(region, months[:_YEAR], "submissions")
    return {"periods": [months[_YEAR], month], "submissions": last, "change": percent_change(last, before)}


def _point(measures: _Measures, region: str, period: str) -> dict[str, Any]:
    submissions, sessions = measures.submissions, measures.sessions
    lacking = {*submissions.loaded.lacking(period), *sessions.loaded.lacking(period)}
    return {
        "period": period,
        "submissions": submissions.total(region, period, "submissions"),
        "sessions": sessions.total(region, period, "sessions"),
        "partial": [] if region else sorted(lacking),
    }


def _retention(quarters: _Measure, region: str, quarter: str) -> dict[str, Any]:
    counts = {name: quarters.common_total(region, quarter, name) or 0 for name in STATUSES}
    used_before = counts["retained"] + counts["churned"]
    return {
        "quarter": quarter,
        **counts,
        "retention_pct": percent(counts["retained"], used_before),
        "churn_pct": percent(counts["churned"], used_before),
        "partial": [] if region else quarters.loaded.lacking(quarter),
    }
