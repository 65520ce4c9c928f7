from __future__ import annotations

import itertools
from datetime import datetime

import pytest

from bi_ops.errors import PeriodError
from bi_ops.periods import Cadence, Period, period_of_run
from tests.megs import utc

NOW = utc(2026, 11, 22, 12)


def of_run(cadence: Cadence = Cadence.MONTHLY, timezone: str = "UTC", **how: object) -> Period:
    given = {"parameter": None, "interval_start": None, "now": NOW, **how}
    return period_of_run(cadence, timezone, **given)


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
def test_a_period_is_cut_in_its_time_zone(
    cadence: Cadence, timezone: str, instant: datetime, name: str, start: datetime, end: datetime
) -> None:
    period = Period.containing(instant, cadence, timezone)
    assert (period.name, period.start, period.end) == (name, start, end)
    assert Period.parse(name, cadence, timezone) == period
    assert period.before().end == period.start


@pytest.mark.parametrize("zone", ["America/Asuncion", "Europe/Dublin", "Pacific/Apia", "America/Sao_Paulo"])
def test_periods_leave_neither_gap_nor_overlap(zone: str) -> None:
    months = Period.parse("2026-12", Cadence.MONTHLY, zone).last(400)
    assert all(earlier.end == later.start for earlier, later in itertools.pairwise(months))
    assert [months[0].name, months[-1].name] == ["1993-09", "2026-12"]


def test_a_scheduled_run_covers_its_data_interval() -> None:
    assert of_run(interval_start=utc(2026, 10, 1)).name == "2026-10"
    assert of_run(interval_start=utc(2026, 10, 1, 1)).name == "2026-10"  # a schedule at 01:00


def test_the_parameter_goes_before_the_interval() -> None:
    assert of_run(parameter=" 2026-08 ", interval_start=utc(2026, 10, 1)).name == "2026-08"


def test_a_run_without_interval_says_what_to_give() -> None:
    with pytest.raises(PeriodError, match=r"bi_monthly --conf '\{\"period\": \"2026-10\"\}'"):
        of_run()


@pytest.mark.parametrize("name", ["2026-11", "2026-12", "2030-01"])
def test_a_period_that_has_not_ended_is_refused_with_the_latest_that_has(name: str) -> None:
    with pytest.raises(PeriodError) as caught:
        of_run(parameter=name)
    assert ("still running" if name == "2026-11" else "in the future") in str(caught.value)
    assert "the latest being 2026-10" in str(caught.value)


def test_the_running_period_ends_where_the_settings_say() -> None:
    just_before = utc(2026, 10, 31, 12, 59)
    with pytest.raises(PeriodError, match="still running"):
        of_run(timezone="Australia/Sydney", parameter="2026-10", now=just_before)
    assert of_run(timezone="Australia/Sydney", parameter="2026-10", now=utc(2026, 10, 31, 13)).name == "2026-10"


@pytest.mark.parametrize("name", ["2026-13", "2026-1", "October", "2026-Q3", "0000-01", "2026-10-01", "२०२६-१०"])
def test_what_is_not_a_month_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(PeriodError, match="a month such as 2026-10"):
        of_run(parameter=name)
