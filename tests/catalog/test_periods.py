"""Tests how months and quarters are cut in a time zone, and which period a run covers."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from bi_ops.catalog.periods import Cadence, Period, RunDates, resolve_period
from bi_ops.errors import PeriodError
from tests.meg_factory import utc

pytestmark = pytest.mark.fast

NOW = utc(2026, 11, 22, 12)


def get_period(
    cadence: Cadence = Cadence.MONTHLY,
    timezone: str = "UTC",
    *,
    requested: str | None = None,
    now: datetime = NOW,
    **dates: Any,
) -> Period:
    return resolve_period(
        cadence, timezone, requested=requested, dates=RunDates(**{"run_after": now, **dates}), now=now
    )


def interval(start: datetime, end: datetime, *, is_scheduled: bool = True) -> dict[str, Any]:
    return {"interval_start": start, "interval_end": end, "logical_date": start, "is_scheduled": is_scheduled}


OCTOBER = interval(utc(2026, 10, 1), utc(2026, 11, 1))


@pytest.mark.parametrize(
    ("cadence", "timezone", "instant", "name", "start", "end"),
    [
        (Cadence.MONTHLY, "UTC", utc(2026, 10, 31, 23, 59), "2026-10", utc(2026, 10, 1), utc(2026, 11, 1)),
        (Cadence.MONTHLY, "UTC", utc(2026, 12, 1), "2026-12", utc(2026, 12, 1), utc(2027, 1, 1)),
        (Cadence.MONTHLY, "Europe/Dublin", utc(2026, 9, 30, 23), "2026-10", utc(2026, 9, 30, 23), utc(2026, 11, 1)),
        (
            Cadence.MONTHLY,
            "Australia/Sydney",
            utc(2026, 9, 30, 13, 59),
            "2026-09",
            utc(2026, 8, 31, 14),
            utc(2026, 9, 30, 14),
        ),
        (
            Cadence.MONTHLY,
            "Australia/Sydney",
            utc(2026, 10, 15),
            "2026-10",
            utc(2026, 9, 30, 14),
            utc(2026, 10, 31, 13),
        ),
        (Cadence.QUARTERLY, "UTC", utc(2026, 9, 30, 23), "2026-Q3", utc(2026, 7, 1), utc(2026, 10, 1)),
        (Cadence.QUARTERLY, "UTC", utc(2026, 12, 31), "2026-Q4", utc(2026, 10, 1), utc(2027, 1, 1)),
    ],
)
def test_period_is_cut_in_time_zone(
    cadence: Cadence, timezone: str, instant: datetime, name: str, start: datetime, end: datetime
) -> None:
    """A period starts and ends at midnight of its time zone."""
    period = Period.containing(instant, cadence, timezone)
    assert (period.name, period.start, period.end) == (name, start, end)
    assert Period.parse(name, cadence, timezone) == period
    assert period.previous().end == period.start


@pytest.mark.parametrize("zone", ["America/Asuncion", "Europe/Dublin", "Pacific/Apia", "America/Sao_Paulo"])
def test_periods_are_contiguous(zone: str) -> None:
    """Periods leave neither a gap nor an overlap."""
    months = Period.parse("2026-12", Cadence.MONTHLY, zone).trailing(400)
    assert all(earlier.end == later.start for earlier, later in itertools.pairwise(months))
    assert [months[0].name, months[-1].name] == ["1993-09", "2026-12"]


def test_scheduled_run_covers_interval() -> None:
    """A scheduled run covers its data interval."""
    assert get_period(**OCTOBER).name == "2026-10"
    assert get_period(**interval(utc(2026, 10, 1, 1), utc(2026, 11, 1, 1))).name == "2026-10"  # a schedule at 01:00


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("scheduled_in", ["America/New_York", "UTC", "Pacific/Kiritimati"])
def test_period_survives_time_zone_change(zone: str, scheduled_in: str) -> None:
    """A run that was scheduled under one time zone and is cleared under another covers the same period."""
    month = Period.parse("2026-10", Cadence.MONTHLY, scheduled_in)
    quarter = Period.parse("2026-Q3", Cadence.QUARTERLY, scheduled_in)
    assert get_period(timezone=zone, **interval(month.start, month.end)).name == "2026-10"
    assert get_period(Cadence.QUARTERLY, zone, **interval(quarter.start, quarter.end)).name == "2026-Q3"
    manual_dates = {"interval_start": month.start, "interval_end": month.end, "logical_date": month.end}
    assert get_period(timezone=zone, **manual_dates).name == "2026-10"


def test_parameter_wins_over_interval() -> None:
    """The parameter wins over the interval."""
    assert get_period(requested=" 2026-08 ", **OCTOBER).name == "2026-08"


@pytest.mark.parametrize(
    ("cadence", "run_after", "name"),
    [
        (Cadence.MONTHLY, utc(2026, 11, 22), "2026-10"),
        (Cadence.MONTHLY, utc(2026, 11, 1), "2026-10"),
        (Cadence.MONTHLY, utc(2026, 10, 31, 23), "2026-09"),
        (Cadence.QUARTERLY, utc(2026, 11, 22), "2026-Q3"),
    ],
)
def test_run_without_interval_loads_last_ended(cadence: Cadence, run_after: datetime, name: str) -> None:
    """Runs from the command line, from Materialize on an asset, and those that an asset triggers."""
    assert get_period(cadence, run_after=run_after).name == name


@pytest.mark.parametrize(
    ("logical_date", "interval_start", "interval_end"),
    [
        (utc(2026, 9, 15), utc(2026, 10, 1), utc(2026, 11, 1)),  # inferred by the command line from the present
        (utc(2026, 9, 15), utc(2026, 8, 1), utc(2026, 9, 1)),  # inferred by the form and the API from the date
        (utc(2026, 9, 1), utc(2026, 8, 1), utc(2026, 9, 1)),
        (utc(2026, 9, 30, 23), utc(2026, 8, 1), utc(2026, 9, 1)),
        (utc(2026, 9, 15), None, None),
    ],
)
def test_manual_run_follows_logical_date(
    logical_date: datetime, interval_start: datetime | None, interval_end: datetime | None
) -> None:
    """The period is the last that ended by the logical date, however Airflow infers the data interval."""
    dates = {"logical_date": logical_date, "interval_start": interval_start, "interval_end": interval_end}
    assert get_period(**dates).name == "2026-08"


@pytest.mark.parametrize("lag", [timedelta(seconds=50), timedelta(minutes=14)], ids=str)
def test_late_clock_accepts_ended_period(lag: timedelta) -> None:
    """A worker whose clock is behind the scheduler's waits for the end instead of failing."""
    assert get_period(now=utc(2026, 11, 1) - lag, **OCTOBER).name == "2026-10"


@pytest.mark.parametrize("name", ["2026-11", "2026-12", "2030-01"])
def test_future_period_names_latest(name: str) -> None:
    """A period that has not ended is refused with the latest that has."""
    with pytest.raises(PeriodError) as caught:
        get_period(requested=name)
    assert ("still running" if name == "2026-11" else "in the future") in str(caught.value)
    assert "the latest is 2026-10" in str(caught.value)


def test_running_period_end_follows_time_zone() -> None:
    """The running period ends at midnight of the settings' time zone."""
    before_end = utc(2026, 10, 31, 12, 44)
    with pytest.raises(PeriodError, match="still running"):
        get_period(timezone="Australia/Sydney", requested="2026-10", now=before_end)
    assert get_period(timezone="Australia/Sydney", requested="2026-10", now=utc(2026, 10, 31, 13)).name == "2026-10"


@pytest.mark.parametrize("name", ["2026-13", "2026-1", "October", "2026-Q3", "0000-01", "2026-10-01", "२०२६-१०"])
def test_invalid_period_shows_example(name: str) -> None:
    """An invalid period is refused with an example."""
    with pytest.raises(PeriodError, match="a month such as 2026-10"):
        get_period(requested=name)
