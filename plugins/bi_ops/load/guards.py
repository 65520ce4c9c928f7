"""The guards of a publish: it must not replace newer data, nor shrink the slice too much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from fractions import Fraction

from bi_ops.catalog.jobs import LoadMode
from bi_ops.errors import ShrinkError, StaleLoadError
from bi_ops.load.staged_loads import StagedLoad
from bi_ops.mongo.store import Store

_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class LiveTotals:
    """The totals of the live slice before it is replaced.

    Attributes:
        documents: The number of its documents.
        measure: The sum of the job's main measure over them.
    """

    documents: int
    measure: int


def check_not_stale(store: Store, staged: StagedLoad) -> None:
    """Check that neither a later as-of nor a later reading of MEG is live.

    Raises:
        StaleLoadError: One of them is.
    """
    slice_ = staged.load.slice
    row = store.ledger.find_one({"_id": slice_.ledger_id})
    if row is None:
        return
    origin = f"from run {row['run_id']}, published {_moment(row['published_at'])}"
    if slice_.job.mode is LoadMode.REPLACE_REGION and row["as_of"] > slice_.as_of:
        raise StaleLoadError(
            "a newer snapshot is already live, so this older one was not published",
            context=str(slice_),
            expected=f"a live snapshot no newer than {slice_.as_of.isoformat()}",
            actual=f"{row['as_of'].isoformat()} {origin}",
            hint="No action needed. To describe the present, trigger a new run; to publish the older snapshot, "
            "trigger it with force.",
        )
    readings = [row, *filter(None, [row.get("publishing")])]
    newest = max(readings, key=lambda reading: reading.get("read_at") or _LONG_AGO)
    if newest is not row:
        origin = f"from run {newest['run_id']}, which is being published"
    live_read_at = newest.get("read_at") or _LONG_AGO
    if live_read_at > staged.read_at:
        raise StaleLoadError(
            "a newer reading is already live, so this older one was not published",
            context=str(slice_),
            expected=f"a live slice read from MEG no later than this load, {_moment(staged.read_at)}",
            actual=f"{_moment(live_read_at)} {origin}",
            hint=f"No action needed. To read MEG again, clear the task group {slice_.task_group} of this run; to "
            "publish the older reading, trigger it with force.",
        )


def _moment(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S %Z}" if instant else "not yet"


def check_shrink(staged: StagedLoad, live: LiveTotals, max_shrink: float) -> None:
    """Check that neither the number of documents nor the main measure falls to zero or by more than `max_shrink`.

    Raises:
        ShrinkError: One of them does.
    """
    measure = staged.load.slice.job.measure
    for count, live_count, unit in (
        (staged.documents, live.documents, "documents"),
        (staged.measure, live.measure, measure),
    ):
        min_count = max(1, math.ceil(live_count * (1 - Fraction(str(max_shrink)))))  # exact: 70 % of 10 is 7
        if live_count and count < min_count:
            raise ShrinkError(
                "the slice would shrink too much, so the live slice was left unchanged",
                context=str(staged.load.slice),
                expected=f"at least {min_count} of the {live_count} live {unit}",
                actual=str(count),
                hint="Check MEG's data. If the decrease is real, trigger the run again with force, or raise "
                "BI_MAX_SHRINK.",
            )
