"""Tests what the operators of bi_backfill do by themselves: the daily run, recorded failures and the report."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from bi_ops.airflow.backfill_operators import AuditOperator, BackfillReportOperator, FindSlicesOperator
from bi_ops.airflow.operators import PlanOperator, PublishOperator
from bi_ops.catalog.jobs import JOBS
from bi_ops.load.publish import publish
from bi_ops.mongo.store import Store
from dev.embedded_stack import DatabaseServers
from tests.load_helpers import SUBMISSIONS, monthly_slice, stage_documents
from tests.meg_factory import MegFactory

JOB = SUBMISSIONS.name
THIS_MONTH = pendulum.now("UTC").start_of("month")
MONTHS = [THIS_MONTH.subtract(months=number).format("YYYY-MM") for number in (1, 2, 3, 4, 5)]
PARAMS = {"jobs": [job.name for job in JOBS], "regions": ["eu"], "from": None, "to": None}


@pytest.fixture(autouse=True)
def _environment(
    monkeypatch: pytest.MonkeyPatch, servers: DatabaseServers, store: Store, meg_factory: MegFactory
) -> None:
    """Five months of one region are due, and late."""
    assert store
    meg_factory.bulk_forms(3)
    settings = {"BI_AGGREGATE": "1", "MEG_REGIONS": "eu", "BI_DEADLINE_HOURS": "0.01"}
    settings["BI_START_DATE"] = THIS_MONTH.subtract(months=5).to_date_string()
    for name, value in {**settings, **servers.connections({"eu": "meg_eu"})}.items():
        monkeypatch.setenv(name, value)


class Run:
    """One run of bi_backfill.

    Attributes:
        xcoms: What its tasks have pushed, by key.
        context: The context of its tasks.
    """

    def __init__(self, run_type: str = "manual", **conf: Any) -> None:
        self.xcoms: dict[str, Any] = {}
        self.context: Any = {
            "dag": SimpleNamespace(dag_id="bi_backfill"),
            "run_id": f"{run_type}__1",
            "dag_run": SimpleNamespace(
                conf=conf,
                data_interval_start=None,
                data_interval_end=None,
                logical_date=None,
                run_after=datetime.now(timezone.utc),
                run_type=run_type,
                start_date=datetime.now(timezone.utc),
            ),
            "params": {**PARAMS, "only_missing": True, "dry_run": False, **conf},
            "ti": SimpleNamespace(xcom_push=self.xcoms.__setitem__, xcom_pull=lambda key, **_: self.xcoms.get(key)),
        }

    def find(self) -> list[dict[str, Any]]:
        arguments: list[dict[str, Any]] = FindSlicesOperator(task_id="find").execute(self.context)
        return arguments

    def report(self, audits: Any = None) -> Any:
        return BackfillReportOperator(task_id="report", audits=audits).execute(self.context)


def periods(arguments: list[dict[str, Any]], job: str = JOB) -> list[str]:
    return [argument["conf"]["period"] for argument in arguments if job in argument["conf"]["jobs"]]


def fail_plan(period: str, *, dry_run: bool = False) -> None:
    """Let the plan of a month fail for a reason that no retry resolves."""
    context = Run("manual").context | {"params": {**PARAMS, "period": period, "force": False, "dry_run": dry_run}}
    plan = PlanOperator(task_id=f"{JOB}.eu.plan", job=SUBMISSIONS, region="eu", sql="SELECT no_such_column")
    with pytest.raises(AirflowFailException):
        plan.execute(context)


def test_manual_run_loads_every_period() -> None:
    """A run by hand loads every missing period."""
    arguments = Run().find()
    assert periods(arguments) == MONTHS
    assert {argument["trigger_dag_id"] for argument in arguments} >= {"bi_monthly", "bi_weekly"}
    run_ids = [argument["trigger_run_id"] for argument in arguments]
    assert len(set(run_ids)) == len(run_ids)
    assert any(MONTHS[0] in run_id for run_id in run_ids)


def test_daily_run_loads_newest_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daily run loads no more than BI_MAX_HEAL_PERIODS periods, the newest first."""
    only = {"jobs": [JOB]}
    assert periods(Run("scheduled", **only).find()) == MONTHS[:3]
    monkeypatch.setenv("BI_MAX_HEAL_PERIODS", "1")
    assert periods(Run("scheduled", **only).find()) == MONTHS[:1]


def test_daily_run_leaves_what_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daily run leaves to the schedule what has ended less than BI_DEADLINE_HOURS ago."""
    monkeypatch.setenv("BI_DEADLINE_HOURS", str(24 * 28))
    now = pendulum.now("UTC")
    expected = MONTHS[1:4] if now.subtract(days=28) < THIS_MONTH else MONTHS[:3]
    assert periods(Run("scheduled", jobs=[JOB]).find()) == expected


def test_daily_run_repeats_no_final_failure() -> None:
    """The daily run leaves out what failed for a reason that remains, and names it; a run by hand tries again."""
    fail_plan(MONTHS[1], dry_run=True)
    fail_plan(MONTHS[0])
    daily = Run("scheduled", jobs=[JOB])
    assert periods(daily.find()) == MONTHS[1:4]
    [blocked] = daily.xcoms["blocked"]
    assert blocked.startswith(f"{JOB} eu {MONTHS[0]}: ")
    assert periods(Run(jobs=[JOB]).find()) == MONTHS


def test_refused_dry_run_leaves_no_trace(store: Store) -> None:
    """A dry run that a guard refuses is not recorded as a failure, and leaves the ledger as it was; a real run is."""
    slice_ = monthly_slice(MONTHS[0])
    publish(store, stage_documents(store, slice_, dict.fromkeys(range(10), 1)), max_shrink=0.5)
    ledger = list(store.ledger.find())
    shrunk = stage_documents(store, slice_, {1: 1})
    for dry_run in (True, False):
        operator = PublishOperator(task_id=f"{JOB}.eu.publish", load=shrunk.id)
        params = {"force": False, "dry_run": dry_run}
        with pytest.raises(AirflowFailException, match="shrink"):
            operator.execute(Run().context | {"params": params})
        assert store.failures.count_documents({}) == (0 if dry_run else 1)
        assert list(store.ledger.find()) == ledger


def test_parameters_are_those_of_the_request() -> None:
    """What a run was triggered with counts, also where Airflow does not merge it into the DAG's parameters."""
    run = Run(jobs=[JOB], only_missing=False, dry_run=True)
    run.context["params"] = {**PARAMS, "only_missing": True, "dry_run": False}
    assert run.find() == []
    assert len(run.xcoms["audits"]) == len(MONTHS)


def test_region_that_is_down_fails_report(servers: DatabaseServers) -> None:
    """Nothing is loaded of a region whose MEG is down, and the report fails with its error."""
    with servers.postgres.connect() as admin:
        admin.execute("ALTER DATABASE meg_eu ALLOW_CONNECTIONS false")
    try:
        run = Run(jobs=[JOB])
        assert run.find() == []
    finally:
        with servers.postgres.connect() as admin:
            admin.execute("ALTER DATABASE meg_eu ALLOW_CONNECTIONS true")
    with pytest.raises(AirflowFailException, match="compared: 5"):
        run.report()
    assert run.xcoms["blocked"] == [f"{JOB} eu {month}: MEG cannot be read" for month in MONTHS]


def test_report_fails_while_slices_are_missing() -> None:
    """The report fails while something that the run was to load is missing, or where find has failed."""
    run = Run(jobs=[JOB], **{"from": MONTHS[1]})
    with pytest.raises(AirflowFailException, match="find"):
        run.report()
    assert run.find()
    with pytest.raises(AirflowFailException, match="compared: 2"):
        run.report()


def test_audit_row_that_failed_fails_report() -> None:
    """A slice that cannot be compared fails the report; the others are compared."""
    run = Run(jobs=[JOB], only_missing=False, dry_run=True)
    assert run.find() == []
    audits = run.xcoms["audits"]
    assert [slices[0]["period"] for slices in audits] == MONTHS
    slices = [*audits[0], {**audits[0][0], "region": "uk"}]  # there is no connection meg_uk
    rows = AuditOperator(task_id="audit", slices=slices).execute(run.context)
    assert [(row["region"], row.get("added"), "error" in row) for row in rows] == [("eu", 3, False), ("uk", None, True)]
    with pytest.raises(AirflowFailException, match="compared: 1"):
        run.report([rows])
    assert run.report([rows[:1]]) == rows[:1]


def test_closed_gate_skips_backfill(monkeypatch: pytest.MonkeyPatch) -> None:
    """bi_backfill skips itself while BI_AGGREGATE is off."""
    monkeypatch.setenv("BI_AGGREGATE", "0")
    with pytest.raises(AirflowSkipException):
        Run().find()
