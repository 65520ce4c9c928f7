"""Periods: the months and quarters that a load covers, cut in the time zone of the settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
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

PERIOD_PATTERN = {Cadence.MONTHLY: _MONTH, Cadence.QUARTERLY: _QUARTER, Cadence.WEEKLY: f"{_MONTH}|{_QUARTER}"}
"""The names of the periods that a run of each cadence may be triggered for; a snapshot describes a period's end."""

PERIOD_EXAMPLE = {
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
        after = start.add(months=months)
        name = f"{local.year:04}-{first_month:02}" if months == 1 else f"{local.year:04}-Q{local.quarter}"
        # Built like the next period's start, where a clock change at midnight would part them by an hour.
        return cls(name, start, pendulum.datetime(after.year, after.month, 1, tz=timezone))

    @classmethod
    def parse(cls, name: str, cadence: Cadence, timezone: str) -> Period:
        """The period called `name`.

        Raises:
            PeriodError: `name` is not one that a run of this cadence may be about.
        """
        if re.fullmatch(PERIOD_PATTERN[cadence], name) is None:
            raise PeriodError(
                "this is not a period",
                where="parameter period",
                expected=PERIOD_EXAMPLE[cadence],
                found=repr(name),
                cure="Trigger the run again with such a period, or with none for the period just ended.",
            )
        year, _, part = name.partition("-")
        month = int(part[1:]) * 3 if part.startswith("Q") else int(part)
        return cls.containing(pendulum.datetime(int(year), month, 15, tz=timezone), _cadence_of(name), timezone)

    def before(self) -> Period:
        """The period that ends where this one starts."""
        start, cadence = pendulum.instance(self.start), _cadence_of(self.name)
        return Period.containing(start.subtract(days=15), cadence, start.timezone_name or "UTC")

    def last(self, count: int) -> list[Period]:
        """The `count` periods that end with this one, the earliest first."""
        periods = [self]
        while len(periods) < count:
            periods.append(periods[-1].before())
        return periods[::-1]


def _cadence_of(name: str) -> Cadence:
    return Cadence.QUARTERLY if "Q" in name else Cadence.MONTHLY


def period_of_run(
    cadence: Cadence,
    timezone: str,
    *,
    parameter: str | None,
    interval_start: datetime | None,
    now: datetime,
) -> Period:
    """The period that a run covers: the one asked for, else the month or quarter of its data interval.

    Args:
        cadence: The cadence of the DAG.
        timezone: Where its periods are cut.
        parameter: The run's `period` parameter; empty and None mean that none was given.
        interval_start: Where the run's data interval starts; any instant of the period will do.
        now: The present, against which a period that has not ended is refused.

    Raises:
        PeriodError: The period is malformed or has not ended, or the run has neither parameter nor interval.
    """
    example = PERIOD_EXAMPLE[cadence]
    if parameter:
        period = Period.parse(parameter.strip(), cadence, timezone)
    elif interval_start is not None:
        period = Period.containing(interval_start, cadence, timezone)
    else:
        raise PeriodError(
            "this run has no data interval, so its period cannot be told",
            where=f"DAG {cadence.dag_id}",
            expected=f"the parameter period: {example}",
            found="a run without a logical date and without that parameter",
            cure=f"Trigger it with a period, for example "
            f"""airflow dags trigger {cadence.dag_id} --conf '{{"period": "{example.split()[-1]}"}}'.""",
        )
    if period.end > now:
        running = period.start <= now
        raise PeriodError(
            f"{period.name} is {'still running' if running else 'in the future'}, its figures are not final",
            where="parameter period",
            expected=f"a period that has ended, the latest being "
            f"{Period.containing(now, _cadence_of(period.name), timezone).before().name}",
            found=f"{period.name}, which ends {period.end:%Y-%m-%d %H:%M %Z}",
            cure="Trigger the run again with an earlier period.",
        )
    return period
