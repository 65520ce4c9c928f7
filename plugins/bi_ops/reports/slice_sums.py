"""Sums the documents of each slice, and keeps the sums until the slice is published again.

After a publish, a view thus reads the documents of what was published, and not those of two years.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bi_ops.catalog.jobs import Job, LoadMode
from bi_ops.catalog.slices import IdRange
from bi_ops.mongo.store import LEDGER_COLLECTION, Document
from bi_ops.reports.filters import Filters
from bi_ops.reports.loaded_periods import LoadedPeriods, without_months
from bi_ops.reports.query_execution import Query, Steps

CACHE_SECONDS = 300
"""What is read is cached until the ledger changes; until this time for a database that is changed by hand."""
_KEPT_SECONDS = 3_600
"""The same for the sums of one slice, which cost more to read."""
_MAX_KEPT = 32
"""The number of sums that are kept, those of four choices of filters; the ones used longest ago make room."""
_MAX_RANGES = 16
"""The most slices that are read by ranges of `_id`, whose index every collection has; more are read in one scan."""


class RegionPeriod(NamedTuple):
    """A region's documents of one period."""

    region: str
    period: str

    @property
    def id_range(self) -> IdRange:
        """The range of their `_id`s, which start with both in every collection that has periods."""
        return IdRange.with_prefix(f"{self.region}:{self.period}:")


SumsBySlice = Mapping[RegionPeriod, list[Document]]
"""The rows of sums by region and period: one for each value of what they are grouped by."""


@dataclass(frozen=True, eq=False)
class Sums:
    """What to sum; each is a constant, and equal to itself alone.

    Attributes:
        job: The job that loads the collection.
        sums: The accumulators by name, in MongoDB's words.
        by: The field whose values have a row each; empty for one row for each region and period.
        context: The part of the page that shows them, for errors.
    """

    job: Job
    sums: Mapping[str, Any]
    by: str = ""
    context: str = "the reports"


class _Kept(NamedTuple):
    version: Hashable
    expires: float
    rows: list[Document]


class SliceSums:
    """The sums of the slices that were asked for, by what is summed and by the filters other than region and month."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, dict[RegionPeriod, _Kept]] = {}

    def clear(self) -> None:
        """Forget all sums."""
        self._kept.clear()

    def steps(self, sums: Sums, filters: Filters, loaded: LoadedPeriods, periods: Iterable[str]) -> Steps[SumsBySlice]:
        """The queries for the sums of those of these periods that the selected regions have loaded.

        Args:
            sums: What to sum.
            filters: The filters; the months among them are those of `periods`.
            loaded: The loaded periods of the job.
            periods: The periods.

        Raises:
            ReportError: A filter is invalid.
        """
        key = sums, filters.institutions, filters.form_types
        kept = self._kept[key] = self._kept.pop(key, {})
        while len(self._kept) > _MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        selected = {
            RegionPeriod(region, period)
            for period in periods
            for region in loaded.coverage.regions
            if loaded.has(period, region)
        }
        # Before the documents: what is kept is then never older than its version says.
        versions = yield from _version_steps(sums.job)
        now = time.monotonic()
        current = {slice_: versions.get(_published_slice(sums.job, *slice_)) for slice_ in selected}
        rows = {
            slice_: kept[slice_].rows
            for slice_, version in current.items()
            if version and slice_ in kept and kept[slice_].version == version and now < kept[slice_].expires
        }
        if missing := [slice_ for slice_ in selected if slice_ not in rows]:
            read = yield _sum_query(sums, filters, missing)
            read_rows = {RegionPeriod(**row["_id"]): row["rows"] for row in read}
            rows |= {slice_: read_rows.get(slice_, []) for slice_ in missing}
            kept.update({slice_: _Kept(current[slice_], now + _KEPT_SECONDS, rows[slice_]) for slice_ in missing})
        return rows


def _version_steps(job: Job) -> Steps[Mapping[tuple[str, str | None], Hashable]]:
    """The query for a value of each slice that changes when it is published."""
    fields = {"region": 1, "period": 1, "published_at": 1, "publishing.documents": 1}
    match = {"job": job.name, "published_at": {"$ne": None}}
    rows = yield Query(LEDGER_COLLECTION, [{"$match": match}, {"$project": {"_id": 0, **fields}}], "the ledger")
    return {
        _published_slice(job, row["region"], row.get("period")): (
            row["published_at"],
            (row.get("publishing") or {}).get("documents"),
        )
        for row in rows
    }


def _published_slice(job: Job, region: str, period: str | None) -> tuple[str, str | None]:
    """What one publish replaces: a region's period, or all of its periods at once."""
    return region, period if job.mode is LoadMode.REPLACE_PERIOD else None


def match_ids(slices: Collection[RegionPeriod]) -> Document:
    """A filter that finds the documents of a few slices through the index of `_id`; empty for many or none."""
    if not 0 < len(slices) <= _MAX_RANGES:
        return {}
    return {"$or": [slice_.id_range.filter for slice_ in slices]}


def _sum_query(sums: Sums, filters: Filters, slices: Collection[RegionPeriod]) -> Query:
    """The sums of these slices: a row for each, which holds an array of the values of `by`."""
    match = without_months(filters).match(sums.job)
    match["region"] = {"$in": sorted({slice_.region for slice_ in slices})}
    match["period"] = {"$in": sorted({slice_.period for slice_ in slices})}
    match |= match_ids(slices)
    slice_id = {"region": "$region", "period": "$period"}
    by = {sums.by: f"${sums.by}"} if sums.by else {}
    kept_by = {sums.by: f"$_id.{sums.by}"} if sums.by else {}
    values = {name: f"${name}" for name in sums.sums}
    pipeline = [
        {"$match": match},
        {"$group": {"_id": {**slice_id, **by}, **sums.sums}},
        {
            "$group": {
                "_id": {"region": "$_id.region", "period": "$_id.period"},
                "rows": {"$push": {**kept_by, **values}},
            }
        },
    ]
    return Query(sums.job.name, pipeline, sums.context)
