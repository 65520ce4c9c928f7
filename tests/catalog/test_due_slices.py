"""Tests which slices are due."""

from __future__ import annotations

from datetime import datetime

import pendulum
import pytest

from bi_ops.catalog.due_slices import due_slices
from bi_ops.settings import Settings

pytestmark = pytest.mark.fast

NOW = pendulum.datetime(2026, 11, 26, 12)


def names(
    now: datetime = NOW, *, timezone: str = "UTC", start_date: str = "2026-06-01", **options: datetime
) -> set[str]:
    settings = Settings(timezone=timezone, start_date=start_date)
    return {
        f"{slice_.job.name} {slice_.period.name if slice_.period else slice_.as_of.isoformat()}"
        for slice_ in due_slices(settings, "eu", now, **options)
    }


def months(first: int, last: int, job: str = "monthly_submissions") -> set[str]:
    return {f"{job} 2026-{month:02}" for month in range(first, last + 1)}


def test_every_month_and_last_snapshot_are_due() -> None:
    """Every month since the start is due, and of what is replaced only the last quarter, week and month's end."""
    assert names() == {
        *months(6, 10),
        *months(6, 10, "monthly_sessions"),
        "top_users 2026-11-01T00:00:00+00:00",
        "quarterly_form_churn 2026-Q3",
        *(f"{job} 2026-11-21T00:00:00+00:00" for job in ("institutions", "forms", "security_risk_clients")),
    }


def test_due_slices_are_newest_first() -> None:
    """The newest slice comes first."""
    instants = [slice_.as_of for slice_ in due_slices(Settings(), "eu", NOW)]
    assert instants == sorted(instants, reverse=True)
    assert len(instants) > 20


@pytest.mark.parametrize(
    ("start_date", "due"),
    [("2026-08-01", months(8, 10)), ("2026-08-02", months(9, 10)), ("2026-11-01", set()), ("2027-01-01", set())],
)
def test_nothing_before_start_date_is_due(start_date: str, due: set[str]) -> None:
    """A period that begins before the start date is not due, as Airflow's catchup does not run it."""
    assert {name for name in names(start_date=start_date) if name.startswith("monthly_submissions")} == due


def test_nothing_is_due_before_future_start() -> None:
    """Before the schedule begins nothing is due, not even a snapshot."""
    assert names(start_date="2027-01-01") == set()


def test_region_owes_nothing_before_its_start() -> None:
    """A region's first month is the one in which it began to use MEG."""
    due = names(region_start=pendulum.datetime(2026, 9, 15))
    assert {name for name in due if name.startswith("monthly")} == {*months(9, 10), *months(9, 10, "monthly_sessions")}
    assert "quarterly_form_churn 2026-Q3" in due
    assert names(region_start=NOW) == set()


@pytest.mark.parametrize(
    ("now", "timezone", "last"),
    [
        (pendulum.datetime(2026, 11, 1), "UTC", "2026-10"),
        (pendulum.datetime(2026, 10, 31, 23, 59), "UTC", "2026-09"),
        (pendulum.datetime(2026, 10, 31, 14), "Australia/Sydney", "2026-10"),
        (pendulum.datetime(2026, 11, 1, 2), "America/New_York", "2026-09"),
    ],
)
def test_period_ends_in_settings_time_zone(now: datetime, timezone: str, last: str) -> None:
    """A month is due from its end on, in the settings' time zone."""
    due = sorted(name for name in names(now, timezone=timezone) if name.startswith("monthly_sessions"))
    assert due[-1] == f"monthly_sessions {last}"


@pytest.mark.parametrize(("day", "saturday"), [(27, 21), (28, 28), (29, 28)])
def test_snapshot_is_due_on_saturday(day: int, saturday: int) -> None:
    """A weekly snapshot is due from Saturday's midnight on."""
    assert f"institutions 2026-11-{saturday}T00:00:00+00:00" in names(pendulum.datetime(2026, 11, day))
