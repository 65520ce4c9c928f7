"""Months and quarters in the settings' time zone, and which of them a DAG run loads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import pendulum

from bi_ops.errors import PeriodError


class Cadence(str, Enum):
    """How often a job runs; one DAG each."""

    MONTHLY = "monthly"
    QUARTERLY = "quarterly"
    WEEKLY = "weekly"

    @property
    def dag_id(self) -> str:
        """The DAG that runs this cadence's jobs."""
        return f"bi_{self.value}"


_MONTHS = {Cadence.MONTHLY: 1, Cadence.QUARTERLY: 3}
_YEAR = "(19[7-9][0-9]|2[0-9]{3})"
_MONTH, _QUARTER = f"{_YEAR}-(0[1-9]|1[0-2])", f"{_YEAR}-Q[1-4]"

PERIOD_PATTERNS = {Cadence.MONTHLY: _MONTH, Cadence.QUARTERLY: _QUARTER, Cadence.WEEKLY: f"{_MONTH}|{_QUARTER}"}
"""The period names that a DAG run of each cadence accepts; a snapshot describes the period's end."""

PERIOD_EXAMPLES = {
    Cadence.MONTHLY: "a month such as 2026-10",
    Cadence.QUARTERLY: "a quarter such as 2026-Q3",
    Cadence.WEEKLY: "a month or a quarter such as 2026-Q3",
}


@dataclass(frozen=True)
class Period:
    """A month or a quarter, half-open: `start` is in it, `end` is not.

    Attributes:
        name: `2026-10` or `2026-Q3`.
        start: Its first midnight in the settings' time zone.
        end: The first midnight after it.
    """

    name: str
    start: datetime
    end: datetime

    @classmethod
    def containing(cls, instant: datetime, cadence: Cadence, timezone: str) -> Period:
        """The month or quarter, by `cadence`, in which `instant` lies in `timezone`."""
        local = pendulum.instance(instant).in_timezone(timezone)
        months = _MONTHS[cadence]
        first_month = (local.month - 1) // months * months + 1
        start = pendulum.datetime(local.year, first_month, 1, tz=timezone)
        end = start.add(months=months)
        name = f"{local.year:04}-{first_month:02}" if months == 1 else f"{local.year:04}-Q{local.quarter}"
        # Built like the next period's start: if the clocks change at midnight, `end` may be an hour off.
        return cls(name, start, pendulum.datetime(end.year, end.month, 1, tz=timezone))

    @classmethod
    def parse(cls, name: str, cadence: Cadence, timezone: str) -> Period:
        """The period called `name`.

        Raises:
            PeriodError: `name` is not a period that a run of this cadence accepts.
        """
        if re.fullmatch(PERIOD_PATTERNS[cadence], name) is None:
            raise PeriodError(
                "invalid period",
                context="parameter period",
                expected=PERIOD_EXAMPLES[cadence],
                actual=repr(name),
                hint="Trigger the run again with a valid period, or without one for the period that ended last.",
            )
        year, _, part = name.partition("-")
        month = int(part[1:]) * 3 if part.startswith("Q") else int(part)
        return cls.containing(pendulum.datetime(int(year), month, 15, tz=timezone), _get_cadence(name), timezone)

    @classmethod
    def last_ended(cls, instant: datetime, cadence: Cadence, timezone: str) -> Period:
        """The last period that had ended by `instant`."""
        return cls.containing(instant, cadence, timezone).previous()

    def previous(self) -> Period:
        """The period that ends where this one starts."""
        start, cadence = pendulum.instance(self.start), _get_cadence(self.name)
        return Period.containing(start.subtract(days=15), cadence, start.timezone_name or "UTC")

    def trailing(self, count: int) -> list[Period]:
        """The `count` periods that end with this one, the earliest first."""
        periods = [self]
        while len(periods) < count:
            periods.append(periods[-1].previous())
        return periods[::-1]


def _get_cadence(name: str) -> Cadence:
    return Cadence.QUARTERLY if "Q" in name else Cadence.MONTHLY


@dataclass(frozen=True)
class RunDates:
    """What Airflow knows about the time of a DAG run.

    Attributes:
        run_after: When the run is due; always set.
        logical_date: The logical date; None for a run without one.
        interval_start: Where its data interval starts; None for a run without one.
        interval_end: Where it ends.
        is_scheduled: Whether the schedule or a backfill made the run.
    """

    run_after: datetime
    logical_date: datetime | None = None
    interval_start: datetime | None = None
    interval_end: datetime | None = None
    is_scheduled: bool = False

    @property
    def middle(self) -> datetime | None:
        """The middle of the data interval: it stays in its period even if the time zone is changed."""
        if self.interval_start is None or self.interval_end is None:
            return None
        return self.interval_start + (self.interval_end - self.interval_start) / 2


MAX_CLOCK_LAG = timedelta(minutes=15)
"""A period that ends this soon counts as ended: this machine's clock may be slow, and the load waits for the end."""


def resolve_period(cadence: Cadence, timezone: str, *, requested: str | None, dates: RunDates, now: datetime) -> Period:
    """The period that a run covers.

    It is the requested one; else the one that holds the middle of the data interval; else the last one that had
    ended by `run_after`. A manual run whose logical date does not follow its data interval covers the last period
    that had ended by the logical date: `airflow dags trigger --logical-date` infers the interval from the present.

    Args:
        cadence: The cadence of the DAG.
        timezone: The time zone in which periods are cut.
        requested: The run's `period` parameter; empty or None if not set.
        dates: What Airflow knows about the time of the run.
        now: The present; a period that ends later than `MAX_CLOCK_LAG` after it is refused.

    Raises:
        PeriodError: The requested period is malformed, or the period has not ended.
    """
    if requested:
        period = Period.parse(requested.strip(), cadence, timezone)
    elif dates.middle is None:
        period = Period.last_ended(dates.logical_date or dates.run_after, cadence, timezone)
    else:
        period = Period.containing(dates.middle, cadence, timezone)
        if not dates.is_scheduled and dates.logical_date is not None and not _follows(dates, period):
            period = Period.last_ended(dates.logical_date, cadence, timezone)
    if period.end > now + MAX_CLOCK_LAG:
        state = "still running" if period.start <= now else "in the future"
        raise PeriodError(
            "the period has not ended, so its figures are not final",
            context="parameter period",
            expected=f"a period that has ended; the latest is "
            f"{Period.last_ended(now, _get_cadence(period.name), timezone).name}",
            actual=f"{period.name}, {state}; it ends {period.end:%Y-%m-%d %H:%M %Z}",
            hint="Trigger the run again with an earlier period.",
        )
    return period


def _follows(dates: RunDates, period: Period) -> bool:
    """Whether the logical date lies in the period after the data interval, as Airflow infers one from the other."""
    if dates.logical_date is None or dates.interval_end is None:
        return False
    instant = pendulum.instance(period.end).add(days=1)
    next_period = Period.containing(instant, _get_cadence(period.name), instant.timezone_name or "UTC")
    return dates.interval_end <= dates.logical_date < dates.interval_end + (next_period.end - next_period.start)
