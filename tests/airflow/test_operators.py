"""Tests what the operators do beyond passing Airflow's parameters to the core."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from bi_ops.airflow.operators import PlanOperator, PublishOperator, StageOperator, WaitUntilHourOperator
from bi_ops.airflow.task_error_log import error_lines
from bi_ops.airflow.ui_links import CollectionLink
from bi_ops.catalog.jobs import JOBS, get_job
from bi_ops.catalog.periods import Cadence, RunDates
from bi_ops.catalog.slices import Slice
from bi_ops.errors import PeriodError, PeriodNotEndedError, StagingError
from bi_ops.load.plan import check_is_past
from tests.meg_factory import utc


@pytest.fixture(autouse=True)
def _gate_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BI_AGGREGATE", "1")


def wait(interval_end: datetime | None) -> None:
    context: Any = {"dag_run": SimpleNamespace(data_interval_end=interval_end)}
    WaitUntilHourOperator(task_id="wait_until_01_00", hour=1).execute(context)


def test_wait_defers_until_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait defers until its hour in the settings' time zone."""
    monkeypatch.setenv("BI_TIMEZONE", "Australia/Sydney")
    midnight = pendulum.now("Australia/Sydney").add(days=2).start_of("day")
    with pytest.raises(TaskDeferred) as deferred:
        wait(midnight)
    assert deferred.value.trigger.moment == midnight.set(hour=1)
    assert deferred.value.method_name == "execute_complete"


@pytest.mark.parametrize("ended", [timedelta(hours=2), timedelta(days=40), None], ids=str)
def test_wait_ends_when_hour_is_past(ended: timedelta | None) -> None:
    """The wait ends at once when its hour is past."""
    now = datetime.now(timezone.utc)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    wait(None if ended is None else midnight - ended)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_run_period_is_interval_or_parameter(job: Any) -> None:
    """A run covers its interval, or the period of its parameter."""

    def get_slice(parameter: str | None) -> Slice:
        clicked = utc(2026, 11, 22, 10).replace(microsecond=123_456)
        interval_end = utc(2026, 10, 1) if job.cadence is Cadence.QUARTERLY else utc(2026, 8, 1)
        return Slice.for_dag_run(
            job,
            "eu",
            "UTC",
            requested=parameter,
            dates=RunDates(clicked, utc(2026, 7, 1), utc(2026, 7, 1), interval_end, is_scheduled=True),
            now=clicked + timedelta(seconds=5),
        )

    by_parameter = get_slice("2026-Q2" if job.cadence.dag_id == "bi_quarterly" else "2026-06")
    assert by_parameter.as_of == utc(2026, 7, 1)
    by_interval = get_slice(None)
    if job.is_snapshot:
        assert by_interval.as_of == utc(2026, 11, 22, 10).replace(microsecond=123_000)
        assert by_interval.period is by_parameter.period is None
    else:
        assert by_interval.period
        assert by_interval.period.start == utc(2026, 7, 1)
        assert by_interval.as_of == by_interval.period.end


def test_churn_binds_nine_quarters() -> None:
    """Eight quarters are bound, and the one before them."""
    slice_ = Slice.for_dag_run(
        get_job("quarterly_form_churn"),
        "eu",
        "Europe/Dublin",
        requested="2026-Q3",
        dates=RunDates(utc(2026, 10, 1)),
        now=utc(2026, 11, 1),
    )
    names = slice_.sql_parameters["quarter_names"]
    assert (len(names), names[0], names[-1]) == (9, "2024-Q3", "2026-Q3")
    assert slice_.sql_parameters["quarter_starts"][1:] == slice_.sql_parameters["quarter_ends"][:-1]


def test_collection_link_in_development(monkeypatch: pytest.MonkeyPatch) -> None:
    """In development a task links to its collection."""
    key = SimpleNamespace(task_id="monthly_submissions.eu.publish")
    monkeypatch.delenv("BI_MONGO_EXPRESS", raising=False)
    assert CollectionLink().get_link(None, ti_key=key) == ""
    monkeypatch.setenv("BI_MONGO_EXPRESS", "http://localhost:8081/")
    assert CollectionLink().get_link(None, ti_key=key) == "http://localhost:8081/db/bi/monthly_submissions"


def plan_context(run_after: datetime, *, period: str | None = None, is_scheduled: bool = True) -> Any:
    run = SimpleNamespace(
        run_after=run_after,
        logical_date=None,
        data_interval_start=run_after - timedelta(days=7),
        data_interval_end=run_after,
        run_type="scheduled" if is_scheduled else "manual",
        conf={},
        start_date=run_after,
    )
    params = {"jobs": [job.name for job in JOBS], "regions": ["eu"], "period": period, "force": False, "dry_run": False}
    return {"dag_run": run, "params": params, "run_id": "run", "dag": SimpleNamespace(dag_id="bi_weekly")}


def plan(context: Any) -> None:
    PlanOperator(task_id="forms.eu.plan", job=get_job("forms"), region="eu", sql="").execute(context)


@pytest.mark.parametrize(
    "ended", [timedelta(seconds=2), timedelta(minutes=4), timedelta(seconds=-50)], ids=["now", "late", "clock behind"]
)
def test_plan_waits_until_period_is_settled(ended: timedelta) -> None:
    """A transaction may commit after the period's end, and a worker's clock may be behind the scheduler's."""
    end = datetime.now(timezone.utc).replace(microsecond=0) - ended
    with pytest.raises(TaskDeferred) as deferred:
        plan(plan_context(end))
    assert deferred.value.trigger.moment == end + timedelta(minutes=5)
    assert deferred.value.method_name == "execute_complete"


def test_settled_or_manual_plan_reads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan goes on to the connections, which this environment lacks."""
    now = datetime.now(timezone.utc)
    for context in (plan_context(now - timedelta(minutes=6)), plan_context(now, is_scheduled=False)):
        with pytest.raises(AirflowFailException, match="bi_mongo"):
            plan(context)
    monkeypatch.setenv("BI_SETTLE_MINUTES", "60")
    with pytest.raises(TaskDeferred):
        plan(plan_context(now - timedelta(minutes=6)))


@pytest.mark.parametrize("value", ["", "0", "off", "nonsense"])
def test_closed_gate_skips_every_task(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BI_AGGREGATE", value)
    context = plan_context(utc(2026, 11, 1))
    tasks = (
        PlanOperator(task_id="forms.eu.plan", job=get_job("forms"), region="eu", sql=""),
        StageOperator(task_id="forms.eu.stage", sql="", load="x", forms="everything"),
        PublishOperator(task_id="forms.eu.publish", load="x"),
        WaitUntilHourOperator(task_id="wait_until_01_00", hour=1),
    )
    for task in tasks:
        with pytest.raises(AirflowSkipException, match="BI_AGGREGATE is off"):
            task.execute(context)
        with pytest.raises(AirflowSkipException, match="BI_AGGREGATE is off"):
            task.execute_complete(context)


@pytest.mark.parametrize(
    ("ahead", "error"), [(30, PeriodNotEndedError), (3599, PeriodNotEndedError), (3700, PeriodError)]
)
def test_future_as_of_by_meg_clock_is_refused(ahead: int, error: type[Exception]) -> None:
    """A snapshot of the future would block its slice; a small clock skew is retried."""
    now = utc(2026, 11, 1)
    slice_ = Slice(get_job("forms"), "eu", now + timedelta(seconds=ahead))
    with pytest.raises(error, match=rf"the as-of instant is .*MEG's clock; actual: .*, {ahead} s ahead"):
        check_is_past(slice_, now)
    check_is_past(Slice(get_job("forms"), "eu", now + timedelta(seconds=5)), now)


def test_error_lines_fit_log_view() -> None:
    error = StagingError("it failed " * 30, context="here", expected="one\ntwo", actual="three", hint="do " * 60)
    lines = error_lines(error)
    assert max(map(len, lines)) <= 84
    labels = [line.split(":")[0] for line in lines if not line.startswith("    ")]
    assert labels == ["here", "Expected", "Expected", "Actual", "Hint"]
