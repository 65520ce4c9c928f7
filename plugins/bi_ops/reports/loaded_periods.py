"""Selects the periods that a view shows and compares, among those that the ledger says are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from bi_ops.catalog.jobs import Job
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.reports.coverage import Coverage, coverage_steps
from bi_ops.reports.filters import Filters
from bi_ops.reports.query_execution import Steps


@dataclass(frozen=True)
class LoadedPeriods:
    """The loaded periods of one job.

    Attributes:
        coverage: The periods of the selected regions, whatever the selected months: a comparison may leave them.
        first: The first selected period; empty for no limit.
        last: The last one.
    """

    coverage: Coverage
    first: str
    last: str

    def selects(self, period: str) -> bool:
        """Whether the period is within the selected months."""
        return self.first <= period <= (self.last or "9999")

    def has(self, period: str, region: str = "") -> bool:
        """Whether the region has the period; without one, whether every selected region that has any period has it."""
        if region:
            return period in self.coverage.periods.get(region, ())
        having = [periods for periods in self.coverage.periods.values() if periods]
        return bool(having) and all(period in periods for periods in having)

    def shown(self, region: str = "") -> list[str]:
        """The selected periods, loaded or not, from the first that the region, or any, has to the last."""
        axis = self.coverage.axis
        if region:
            own = sorted(self.coverage.periods.get(region, ()))
            axis = [period for period in axis if own and own[0] <= period <= own[-1]]
        return [period for period in axis if self.selects(period)]

    def newest(self, region: str = "") -> str | None:
        """The newest selected period that the region, or every selected region, has."""
        return next((period for period in reversed(self.shown(region)) if self.has(period, region)), None)

    def lacking(self, period: str) -> list[str]:
        """The selected regions that lack a period which others have."""
        return self.coverage.partial.get(period, [])

    def newer_partial(self) -> Mapping[str, list[str]]:
        """The selected periods after the newest common one, each with the regions that lack it."""
        newest = self.newest() or ""
        partial = self.coverage.partial
        return {period: names for period, names in partial.items() if self.selects(period) and period > newest}


def loaded_period_steps(job: Job, filters: Filters) -> Steps[LoadedPeriods]:
    """The queries for the loaded periods of a job.

    Raises:
        ReportError: A filter is invalid.
    """
    bounds = Filters(from_month=filters.from_month, to_month=filters.to_month).match(job).get("period", {})
    coverage = yield from coverage_steps(job, without_months(filters))
    return LoadedPeriods(coverage, bounds.get("$gte", ""), bounds.get("$lte", ""))


def without_months(filters: Filters) -> Filters:
    """The filters without the months: these limit what is shown, and not what it is compared with."""
    return replace(filters, from_month="", to_month="")


def previous_period(period: str) -> str:
    """The name of the month or quarter before."""
    return trailing_periods(period, 2)[0]


def year_before(period: str) -> str:
    """The name of the same month or quarter a year before."""
    year, _, part = period.partition("-")
    return f"{int(year) - 1}-{part}"


@lru_cache(1024)
def trailing_periods(period: str, count: int) -> tuple[str, ...]:
    """The names of the `count` months or quarters that end with this one, the earliest first."""
    cadence = Cadence.QUARTERLY if "Q" in period else Cadence.MONTHLY
    return tuple(each.name for each in Period.parse(period, cadence, "UTC").trailing(count))
