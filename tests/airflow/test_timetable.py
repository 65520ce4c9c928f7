"""Tests the run ids that the DAGs' schedule gives."""

from __future__ import annotations

import pendulum
import pytest
from airflow.timetables.base import DagRunInfo, TimeRestriction
from airflow.utils.types import DagRunType

from bi_ops.airflow.timetable import PeriodTimetable
from bi_ops.catalog.periods import Cadence

pytestmark = pytest.mark.fast

START = pendulum.datetime(2025, 12, 31, 11)
"""The first midnight of 2026 in Auckland."""


def first_run(timetable: PeriodTimetable) -> DagRunInfo:
    restriction = TimeRestriction(START, None, catchup=True)
    info = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    assert info is not None
    return info


@pytest.mark.parametrize(
    ("cadence", "timezone", "label", "due"),
    [
        (Cadence.MONTHLY, "UTC", "2026-01", "2026-02-01T00:00:00+00:00"),
        (Cadence.MONTHLY, "Pacific/Auckland", "2026-01", "2026-01-31T11:00:00+00:00"),
        (Cadence.MONTHLY, "America/New_York", "2026-01", "2026-02-01T05:00:00+00:00"),
        (Cadence.QUARTERLY, "Europe/Dublin", "2026-Q1", "2026-03-31T23:00:00+00:00"),
        (Cadence.WEEKLY, "Pacific/Auckland", "2026-01-10", "2026-01-09T11:00:00+00:00"),
    ],
)
def test_run_id_names_period(cadence: Cadence, timezone: str, label: str, due: str) -> None:
    """The id of a scheduled run names its period, in the time zone in which it was cut."""
    timetable = PeriodTimetable.deserialize(PeriodTimetable(cadence, timezone).serialize())
    assert isinstance(timetable, PeriodTimetable)
    run = first_run(timetable)
    run_id = timetable.generate_run_id(
        run_type=DagRunType.SCHEDULED, run_after=run.run_after, data_interval=run.data_interval, partition_key=None
    )
    assert run_id == f"scheduled__{label}__{due}"
    assert DagRunType.from_run_id(run_id) is DagRunType.SCHEDULED


def test_manual_run_id_is_unchanged() -> None:
    """A manual run may have a `period` parameter, which the timetable does not see."""
    timetable = PeriodTimetable(Cadence.MONTHLY, "UTC")
    interval = timetable.infer_manual_data_interval(run_after=START)
    for data_interval in (interval, None):
        run_id = timetable.generate_run_id(run_type=DagRunType.MANUAL, run_after=START, data_interval=data_interval)
        assert run_id == "manual__2025-12-31T11:00:00+00:00"
