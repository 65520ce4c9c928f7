"""Finds which periods each region has loaded, so that a chart shows gaps and marks a month that a region lacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bi_ops.catalog.jobs import Job, LoadMode
from bi_ops.catalog.periods import Period
from bi_ops.mongo.store import LEDGER_COLLECTION
from bi_ops.reports.filters import Filters, filter_fields
from bi_ops.reports.query_execution import Query, Steps


@dataclass(frozen=True)
class Coverage:
    """The periods that the selected regions have of one job.

    Attributes:
        regions: The selected regions.
        periods: Each region's periods, within the selected months.
        axis: Every period from the first loaded one to the last, loaded or not.
        partial: For each period that some of the selected regions lack, those regions; a region that was removed from
            the settings lacks nothing after its last period.
    """

    regions: Sequence[str] = ()
    periods: Mapping[str, set[str]] = field(default_factory=dict)
    axis: Sequence[str] = ()
    partial: Mapping[str, list[str]] = field(default_factory=dict)

    def has(self, period: str, region: str | None = None) -> bool:
        """Whether the region, or any of the selected ones, has the period."""
        regions = self.regions if region is None else (region,)
        return any(period in self.periods.get(name, ()) for name in regions)


def coverage_steps(job: Job, filters: Filters, current_regions: Collection[str] | None = None) -> Steps[Coverage]:
    """The queries that find the coverage of a job by period.

    A slice without documents counts as loaded, which the ledger alone knows; the collection of a snapshot holds several
    periods, which the ledger does not list.

    Args:
        job: The job.
        filters: The filters.
        current_regions: The regions of the settings, of which new periods are expected; by default of all.
    """
    slices = yield Query(
        LEDGER_COLLECTION,
        [
            {"$match": {"published_at": {"$ne": None}}},
            {"$group": {"_id": {"job": "$job", "region": "$region", "period": "$period"}}},
        ],
    )
    loaded: dict[str, set[str]] = defaultdict(set)
    regions = {row["_id"]["region"] for row in slices}
    for row in slices:
        if row["_id"]["job"] == job.name and row["_id"].get("period"):
            loaded[row["_id"]["region"]].add(row["_id"]["period"])
    if job.mode is not LoadMode.REPLACE_PERIOD or not loaded:
        for row in (yield Query(job.name, [{"$group": {"_id": {"region": "$region", "period": "$period"}}}])):
            loaded[row["_id"]["region"]].add(row["_id"]["period"])
    selected = yield from _selected_regions(filters, regions | loaded.keys())
    bounds = Filters(from_month=filters.from_month, to_month=filters.to_month).match(job)
    period_range = bounds.get(filter_fields(job)["period"], {})
    first, last = period_range.get("$gte", ""), period_range.get("$lte", "9999")
    periods = {region: {name for name in loaded[region] if first <= name <= last} for region in selected}
    axis = _every_period(job, set().union(*periods.values()))
    loaded_periods = [name for name in axis if any(name in names for names in periods.values())]
    current = selected if current_regions is None else current_regions
    expected_until = {region: "9999" if region in current else max(loaded[region], default="") for region in selected}
    partial = {
        name: [region for region in selected if name not in periods[region] and name <= expected_until[region]]
        for name in loaded_periods
    }
    return Coverage(selected, periods, axis, {name: lacking for name, lacking in partial.items() if lacking})


def _selected_regions(filters: Filters, known: set[str]) -> Steps[list[str]]:
    """The regions that the filters select; those of the selected institutions where no region is."""
    regions = known & set(filters.regions) if filters.regions else known
    if filters.institutions:
        match = {"name": {"$in": list(filters.institutions)}}
        rows = yield Query("institutions", [{"$match": match}, {"$group": {"_id": "$region"}}])
        regions = regions & {row["_id"] for row in rows} or regions
    return sorted(regions)


def _every_period(job: Job, loaded: set[str]) -> list[str]:
    if not loaded:
        return []
    names = [max(loaded)]
    while names[-1] > min(loaded):
        names.append(Period.parse(names[-1], job.cadence, "UTC").previous().name)
    return names[::-1]
