"""Tests the check of a run's parameters at its gate, which reports all problems at once."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.standard.utils.openlineage import _inject_openlineage_parent_info_to_dagrun_conf

from bi_ops.airflow.run_parameters import BackfillRequest, check_backfill_parameters, check_run_parameters
from bi_ops.catalog.periods import Cadence, RunDates
from bi_ops.errors import RunParametersError
from bi_ops.load.backfill_selection import Selection
from tests.meg_factory import utc

pytestmark = pytest.mark.fast

NOW = utc(2026, 11, 22, 12)
JOBS = ["monthly_submissions", "top_users"]


def check(conf: dict[str, Any], cadence: Cadence = Cadence.MONTHLY, dates: RunDates | None = None) -> None:
    dates = dates or RunDates(NOW)
    check_run_parameters(cadence, conf, jobs=JOBS, regions=["eu", "uk"], timezone="UTC", dates=dates, now=NOW)


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"period": None},
        {"period": ""},
        {"period": "2026-10"},
        {"jobs": ["top_users"], "regions": ["uk", "eu"], "force": True, "dry_run": False},
    ],
)
def test_request_with_allowed_values_passes(conf: dict[str, Any]) -> None:
    check(conf)


def test_request_with_openlineage_parent_passes() -> None:
    """What TriggerDagRunOperator adds to a run's parameters where OpenLineage's provider is active."""
    conf = _inject_openlineage_parent_info_to_dagrun_conf({"period": "2026-10"}, {"parentRunId": "1"})
    assert conf.keys() > {"period"}
    check(conf)
    with pytest.raises(RunParametersError, match="Period"):
        check({**conf, "Period": "2026-10"})


@pytest.mark.parametrize(
    ("conf", "expected", "actual"),
    [
        ({"jobs": []}, "one or more of monthly_submissions, top_users", r"jobs: \[\]"),
        ({"regions": []}, "one or more of eu, uk", r"regions: \[\]"),
        ({"regions": "eu"}, "a list of", "regions: 'eu'"),
        ({"regions": None}, "a list of", "regions: None"),
        ({"regions": ["eu", "mars", 7]}, "eu, uk", "regions: 'mars', 7"),
        ({"Period": "2026-10"}, "only the parameters jobs", "parameter 'Period'; did you mean period?"),
        ({"job": ["top_users"]}, "only the parameters", "parameter 'job'; did you mean jobs?"),
        ({"dry-run": True}, "only the parameters", "parameter 'dry-run'; did you mean dry_run?"),
        ({"colour": "red"}, "only the parameters", "parameter 'colour'"),
        ({"period": "May 2026"}, "a month such as 2026-10", "'May 2026'"),
        ({"period": 202610}, "a month such as 2026-10", "202610"),
        ({"period": "2026-11"}, "the latest is 2026-10", "2026-11, still running; it ends"),
        ({"period": "2027-05"}, "the latest is 2026-10", "2027-05, in the future; it ends"),
        ({"force": "yes"}, "force: true or false", "force: 'yes'"),
    ],
)
def test_request_with_bad_value_is_refused(conf: dict[str, Any], expected: str, actual: str) -> None:
    """The error names the parameter with its actual and allowed values, and is final."""
    with pytest.raises(RunParametersError) as caught:
        check(conf)
    assert expected in caught.value.expected
    assert actual.replace("\\", "") in caught.value.actual
    assert not caught.value.retryable


def test_request_reports_all_problems() -> None:
    with pytest.raises(RunParametersError, match="invalid run parameters") as caught:
        check({"jobs": [], "regions": ["mars"], "Period": "2026-10", "period": "May 2026"})
    assert len(caught.value.actual.splitlines()) == 4


@pytest.mark.parametrize(("period", "allowed"), [("2026-10", True), ("2026-Q3", True), ("2026-Q4", False)])
def test_weekly_request_takes_month_or_quarter(period: str, *, allowed: bool) -> None:
    if allowed:
        check({"period": period}, Cadence.WEEKLY)
    else:
        with pytest.raises(RunParametersError, match="2026-Q4"):
            check({"period": period}, Cadence.WEEKLY)


def test_request_for_future_interval_is_refused() -> None:
    """A run whose logical date lies in the future, without a period."""
    future = RunDates(NOW, utc(2027, 3, 1), utc(2027, 2, 1), utc(2027, 3, 1))
    with pytest.raises(RunParametersError, match="2027-02"):
        check({}, dates=future)
    check({}, Cadence.WEEKLY, dates=future)


def backfill(conf: dict[str, Any]) -> BackfillRequest:
    return check_backfill_parameters(conf, jobs=JOBS, regions=["eu", "uk"], timezone="UTC")


def test_backfill_selects_everything_by_default() -> None:
    everything = BackfillRequest(Selection(JOBS, ["eu", "uk"]))
    assert backfill({}) == backfill({"from": "", "to": None, "dry_run": False}) == everything


def test_backfill_request_selects_months() -> None:
    conf = {"jobs": ["top_users"], "from": "2026-03", "to": "2026-05", "only_missing": False, "dry_run": True}
    request = backfill(conf)
    selection = request.selection
    assert (selection.jobs, selection.only_missing, request.dry_run) == (["top_users"], False, True)
    assert selection.first
    assert selection.last
    assert (selection.first.start, selection.last.end) == (utc(2026, 3, 1), utc(2026, 6, 1))


@pytest.mark.parametrize(
    ("conf", "expected", "actual"),
    [
        ({"from": "2026-Q3"}, "from: a month such as 2026-10", "from: '2026-Q3'"),
        ({"to": 202610}, "to: a month such as 2026-10", "to: '202610'"),
        ({"from": "2026-05", "to": "2026-04"}, "from: a month that is not after to", "from: 2026-05, to: 2026-04"),
        ({"only_missing": "no"}, "only_missing: true or false", "only_missing: 'no'"),
        ({"regions": ["mars"]}, "eu, uk", "regions: 'mars'"),
        ({"period": "2026-10"}, "only the parameters jobs, regions, from", "parameter 'period'"),
    ],
)
def test_backfill_request_with_bad_value_is_refused(conf: dict[str, Any], expected: str, actual: str) -> None:
    with pytest.raises(RunParametersError, match="DAG bi_backfill") as caught:
        backfill(conf)
    assert expected in caught.value.expected
    assert actual in caught.value.actual
