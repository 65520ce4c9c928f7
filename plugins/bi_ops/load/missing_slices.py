"""Finds the slices that `bi_backfill` loads, and groups them into DAG runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bi_ops.catalog.due_slices import due_slices
from bi_ops.catalog.periods import Cadence
from bi_ops.catalog.slices import Slice
from bi_ops.errors import BiError
from bi_ops.load.backfill_selection import Selection
from bi_ops.load.ledger import unpublished
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings


@dataclass(frozen=True)
class FoundSlices:
    """What a run of `bi_backfill` found.

    Attributes:
        slices: The slices that can be loaded, the newest first.
        blocked: Those that cannot, each with the error that prevents it.
    """

    slices: list[Slice]
    blocked: dict[Slice, BiError]


def find_slices(
    store: Store,
    settings: Settings,
    selection: Selection,
    now: datetime,
    read_region_start: Callable[[str], datetime | None],
) -> FoundSlices:
    """Find the due slices of a selection.

    Args:
        store: The databases.
        settings: The settings in force.
        selection: The selection.
        now: The instant by which their periods have ended.
        read_region_start: When a region began to use MEG, None if it has not begun; only called for a region of which
            a slice is found, and a `BiError` means that nothing of this region can be loaded.
    """
    slices: list[Slice] = []
    blocked: dict[Slice, BiError] = {}
    first = selection.first.start if selection.first else None
    for region in selection.regions:
        due = _select(due_slices(settings, region, now, start=first), selection)
        candidates = unpublished(store, due) if selection.only_missing else due
        if not candidates:
            continue
        try:
            start = read_region_start(region)
        except BiError as error:
            blocked |= dict.fromkeys(candidates, error)
        else:
            slices += [slice_ for slice_ in candidates if start is None or slice_.as_of > start]
    return FoundSlices(sorted(slices, key=lambda slice_: slice_.as_of, reverse=True), blocked)


def _select(slices: Iterable[Slice], selection: Selection) -> list[Slice]:
    """The slices of the selected jobs whose period, or whose as-of instant, lies in the selected months."""
    first, last = selection.first, selection.last
    return [
        slice_
        for slice_ in slices
        if slice_.job.name in selection.jobs
        and (first is None or (slice_.period.start >= first.start if slice_.period else slice_.as_of > first.start))
        and (last is None or slice_.as_of <= last.end)
    ]


@dataclass(frozen=True)
class LoadRequest:
    """One DAG run, which loads all of its jobs in all of its regions.

    Attributes:
        cadence: The cadence of the DAG.
        period: The run's `period` parameter; empty for a snapshot of the present.
        jobs: The jobs.
        regions: The regions.
    """

    cadence: Cadence
    period: str
    jobs: tuple[str, ...]
    regions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.period or 'now'}: {', '.join(self.jobs)} of {', '.join(self.regions)}"

    @property
    def conf(self) -> dict[str, Any]:
        """The parameters of the DAG run."""
        return {"jobs": [*self.jobs], "regions": [*self.regions], **({"period": self.period} if self.period else {})}


def period_of(slice_: Slice) -> str:
    """The `period` parameter with which a DAG run loads a due slice; empty for a weekly snapshot, of the present."""
    if slice_.period:
        return slice_.period.name
    return "" if slice_.job.cadence is Cadence.WEEKLY else f"{slice_.as_of - timedelta(days=1):%Y-%m}"


def limit_periods(slices: Sequence[Slice], max_periods: int) -> list[Slice]:
    """The slices of the first `max_periods` DAGs and periods among them."""
    keys = list(dict.fromkeys((slice_.job.cadence, period_of(slice_)) for slice_ in slices))[:max_periods]
    return [slice_ for slice_ in slices if (slice_.job.cadence, period_of(slice_)) in keys]


def group_into_requests(slices: Iterable[Slice]) -> list[LoadRequest]:
    """The DAG runs that load exactly these slices, in their order.

    A run loads each of its jobs in each of its regions, so jobs that lack different regions need separate runs.
    """
    regions: dict[tuple[Cadence, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for slice_ in slices:
        regions[slice_.job.cadence, period_of(slice_)][slice_.job.name].append(slice_.region)
    requests = []
    for (cadence, period), by_job in regions.items():
        jobs: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for job, job_regions in by_job.items():
            jobs[tuple(sorted(job_regions))].append(job)
        requests += [LoadRequest(cadence, period, tuple(names), key) for key, names in jobs.items()]
    return requests
