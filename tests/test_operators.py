"""What the operators do of their own, beyond handing Airflow's words to the core."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from bi_ops.jobs import JOBS, job_named
from bi_ops.operators import CollectionLink, WaitOperator
from bi_ops.slices import Slice
from tests.megs import utc


def wait(interval_end: datetime | None) -> None:
    context: Any = {"dag_run": SimpleNamespace(data_interval_end=interval_end)}
    WaitOperator(task_id="wait_until_01_00", hour=1).execute(context)


def test_the_wait_defers_until_its_hour_in_the_settings_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BI_TIMEZONE", "Australia/Sydney")
    midnight = pendulum.now("Australia/Sydney").add(days=2).start_of("day")
    with pytest.raises(TaskDeferred) as deferred:
        wait(midnight)
    assert deferred.value.trigger.moment == midnight.set(hour=1)
    assert deferred.value.method_name == "has_waited"


@pytest.mark.parametrize("ended", [timedelta(hours=2), timedelta(days=40), None], ids=str)
def test_the_wait_is_passed_at_once_when_its_hour_is_past(ended: timedelta | None) -> None:
    now = datetime.now(timezone.utc)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    wait(None if ended is None else midnight - ended)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_run_is_about_its_interval_or_about_the_period_it_was_given(job: Any) -> None:
    def of_run(parameter: str | None) -> Slice:
        clicked = utc(2026, 11, 22, 10).replace(microsecond=123_456)
        return Slice.of_run(
            job,
            "eu",
            "UTC",
            parameter=parameter,
            interval_start=utc(2026, 7, 1),
            run_after=clicked,
            now=clicked + timedelta(seconds=5),
        )

    given = of_run("2026-Q2" if job.cadence.dag_id == "bi_quarterly" else "2026-06")
    assert given.as_of == utc(2026, 7, 1)
    by_interval = of_run(None)
    if job.is_snapshot:
        assert by_interval.as_of == utc(2026, 11, 22, 10).replace(microsecond=123_000)
        assert by_interval.period is given.period is None
    else:
        assert by_interval.period
        assert by_interval.period.start == utc(2026, 7, 1)
        assert by_interval.as_of == by_interval.period.end


def test_the_last_eight_quarters_are_bound_with_the_one_before_them() -> None:
    of = Slice.of_run(
        job_named("quarterly_form_churn"),
        "eu",
        "Europe/Dublin",
        parameter="2026-Q3",
        interval_start=None,
        run_after=utc(2026, 10, 1),
        now=utc(2026, 11, 1),
    )
    names = of.parameters["quarter_names"]
    assert (len(names), names[0], names[-1]) == (9, "2024-Q3", "2026-Q3")
    assert of.parameters["quarter_starts"][1:] == of.parameters["quarter_ends"][:-1]


def test_in_development_a_task_leads_to_its_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SimpleNamespace(task_id="monthly_submissions.eu.publish")
    monkeypatch.delenv("BI_MONGO_EXPRESS", raising=False)
    assert CollectionLink().get_link(None, ti_key=key) == ""
    monkeypatch.setenv("BI_MONGO_EXPRESS", "http://localhost:8081/")
    assert CollectionLink().get_link(None, ti_key=key) == "http://localhost:8081/db/bi/monthly_submissions"
