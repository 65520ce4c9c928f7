"""Finds the slices that became late since the last notification, and those that have been published since.

The ledger alone decides what is late, whatever Airflow ran. The collection `bi_watch` holds one document for each slice
that was reported as late, until it is reported as published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from bi_ops.catalog.due_slices import due_slices
from bi_ops.catalog.jobs import JOBS
from bi_ops.catalog.periods import Period
from bi_ops.catalog.slices import Slice
from bi_ops.errors import BiError
from bi_ops.load.ledger import unpublished
from bi_ops.load.permanent_failures import find_failures
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings

_JOB_NAMES = [job.name for job in JOBS]


@dataclass(frozen=True)
class LatenessChanges:
    """What changed since the last notification.

    Attributes:
        late: The slices that became late.
        failures: The failures, among them, that no retry resolves.
        published: The slices that were reported as late, and are published.
        resolved: The `_id`s of reported slices that are not late any more: the published ones, and those that are no
            longer due, such as those of a region that was removed from the settings.
    """

    late: list[Slice]
    failures: dict[Slice, BiError]
    published: list[Slice]
    resolved: list[str]


def find_changes(
    store: Store, settings: Settings, now: datetime, read_region_start: Callable[[str], datetime | None]
) -> LatenessChanges:
    """Compare what is late with what was reported as late.

    Args:
        store: The databases.
        settings: The settings in force.
        now: The present; a slice is late if it was due `BI_DEADLINE_HOURS` before, and is not published.
        read_region_start: When a region began to use MEG, None if that is unknown; only called for a region of which
            a slice is not published.
    """
    cutoff = now - timedelta(hours=settings.deadline_hours)
    due = [slice_ for region in settings.regions for slice_ in due_slices(settings, region, cutoff)]
    missing = unpublished(store, due)
    missing_ids = {slice_.ledger_id for slice_ in missing}
    late = _after_region_start(missing, read_region_start)
    late_ids = {slice_.ledger_id for slice_ in late}
    reported = {str(row["_id"]) for row in store.watch.find({}, {"_id": True})}
    new = _without_running([slice_ for slice_ in late if slice_.ledger_id not in reported], store, cutoff)
    return LatenessChanges(
        late=new,
        failures=find_failures(store, new),
        published=[slice_ for slice_ in due if slice_.ledger_id in reported - missing_ids],
        resolved=sorted(reported - late_ids),
    )


def _after_region_start(slices: list[Slice], read_region_start: Callable[[str], datetime | None]) -> list[Slice]:
    """The slices without those from before their region began to use MEG, the newest first."""
    starts = {region: read_region_start(region) for region in dict.fromkeys(slice_.region for slice_ in slices)}
    late = [slice_ for slice_ in slices if (start := starts[slice_.region]) is None or slice_.as_of > start]
    return sorted(late, key=lambda slice_: slice_.as_of, reverse=True)


def _without_running(slices: list[Slice], store: Store, cutoff: datetime) -> list[Slice]:
    """The slices without those that are being published at the moment, in several transactions."""
    ids = [slice_.ledger_id for slice_ in slices]
    running = store.ledger.distinct("_id", {"_id": {"$in": ids}, "publishing.read_at": {"$gt": cutoff}})
    return [slice_ for slice_ in slices if slice_.ledger_id not in running]


def mark_reported(store: Store, changes: LatenessChanges, now: datetime) -> None:
    """Store that the changes were reported, so that the next run does not report them again.

    Args:
        store: The databases.
        changes: The changes, after the notification was sent.
        now: When it was sent.
    """
    for slice_ in changes.late:
        row = {**slice_.to_json(), "as_of": slice_.as_of, "reported_at": now}
        store.watch.replace_one({"_id": slice_.ledger_id}, row, upsert=True)
    if changes.resolved:
        store.watch.delete_many({"_id": {"$in": changes.resolved}})


def describe_slices(slices: Iterable[Slice], failures: Mapping[Slice, BiError]) -> list[str]:
    """A paragraph for each job and region, and for each failure among its slices.

    Args:
        slices: The slices.
        failures: The failures of some of them.
    """
    groups: dict[tuple[str, str, str, str], list[Slice]] = {}
    for slice_ in sorted(slices, key=lambda slice_: (_JOB_NAMES.index(slice_.job.name), slice_.region, slice_.as_of)):
        error = failures.get(slice_)
        reason = (error.message, error.hint) if error else ("", "")
        groups.setdefault((slice_.job.name, slice_.region, *reason), []).append(slice_)
    return [
        f"{job} {region}: {_describe_periods(group)}" + (f"\n    {message}\n    Hint: {hint}" if message else "")
        for (job, region, message, hint), group in groups.items()
    ]


def _describe_periods(slices: list[Slice]) -> str:
    """The periods of one job, in their order, as ranges; or the date of its snapshot."""
    ranges: list[list[Period]] = []
    for period in (slice_.period for slice_ in slices if slice_.period):
        if ranges and ranges[-1][-1].name == period.previous().name:
            ranges[-1].append(period)
        else:
            ranges.append([period])
    if not ranges:
        return f"snapshot of {slices[-1].as_of:%Y-%m-%d}"
    names = ([range_[0].name, range_[-1].name] for range_ in ranges)
    return ", ".join(first if first == last else f"{first} to {last}" for first, last in names)
