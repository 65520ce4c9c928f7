"""The slices that are due: what the schedule should have published by an instant, whatever Airflow has run.

A replaced period is due for each period since the start; a replaced region only for the last one, since a publish
removes the earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pendulum

from bi_ops.catalog.jobs import JOBS, Job, LoadMode
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.catalog.slices import Slice
from bi_ops.settings import Settings


@dataclass(frozen=True)
class _Interval:
    """The time between two runs of a cadence's schedule; a period for monthly and quarterly ones."""

    start: datetime
    end: datetime
    period: Period | None = None


def due_slices(
    settings: Settings,
    region: str,
    now: datetime,
    *,
    region_start: datetime | None = None,
    start: datetime | None = None,
) -> list[Slice]:
    """The slices of one region that are due, the newest first.

    Args:
        settings: The settings in force.
        region: The region.
        now: The instant by which their intervals have ended.
        region_start: When the region began to use MEG; nothing before is due.
        start: Where the schedule begins; by default at `BI_START_DATE`.
    """
    start = start or settings.start_datetime
    slices = [
        Slice(job, region, interval.end, None if job.is_snapshot else interval.period)
        for job in JOBS
        for interval in _intervals(job, settings.timezone, start, now)
        if region_start is None or interval.end > region_start
    ]
    return sorted(slices, key=lambda slice_: slice_.as_of, reverse=True)


def _intervals(job: Job, timezone: str, start: datetime, now: datetime) -> Iterator[_Interval]:
    """The intervals that an earlier publish of the job does not replace, the newest first."""
    interval = _last_interval(job.cadence, timezone, now)
    while interval.start >= start:
        yield interval
        if job.mode is LoadMode.REPLACE_REGION or interval.period is None:
            return
        period = interval.period.previous()
        interval = _Interval(period.start, period.end, period)


def _last_interval(cadence: Cadence, timezone: str, now: datetime) -> _Interval:
    if cadence is not Cadence.WEEKLY:
        period = Period.last_ended(now, cadence, timezone)
        return _Interval(period.start, period.end, period)
    today = pendulum.instance(now).in_timezone(timezone).start_of("day")
    saturday = today if today.day_of_week == pendulum.SATURDAY else today.previous(pendulum.SATURDAY)
    return _Interval(saturday.subtract(weeks=1), saturday)
