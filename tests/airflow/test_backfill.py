"""Tests bi_backfill under Airflow's real scheduler: it loads what is missing once, and audits published months."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pendulum
import pytest

from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from dev import airflow, demo_meg, run_dags
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.airflow_env import NO_SCHEDULED_RUNS, AirflowApi, new_airflow
from tests.conftest import STACK
from tests.load_helpers import load_slice, monthly_slice
from tests.meg_factory import MegFactory, connect_as_reader

pytestmark = pytest.mark.airflow

DAG = "bi_backfill"
JOB = "monthly_submissions"
REGIONS = ("eu", "uk", "au")
THIS_MONTH = pendulum.now("UTC").start_of("month")
MONTHS = [THIS_MONTH.subtract(months=number).format("YYYY-MM") for number in (4, 3, 2, 1)]
MISSING = {
    *(f"{JOB}:eu:{name}" for name in MONTHS[:3]),
    f"{JOB}:uk:{MONTHS[3]}",
    *(f"{JOB}:au:{name}" for name in MONTHS),  # a region that has just been added
}
EARLIER_RUN = DagRunRef("bi_monthly", "scheduled__earlier")


@dataclass(frozen=True)
class Installation(AirflowApi):
    """A running Airflow over three regions of which some months are missing.

    Attributes:
        store: The MongoDB databases.
        servers: The databases.
    """

    store: Store
    servers: DatabaseServers

    def run(self, **conf: Any) -> str:
        """Trigger bi_backfill for the four months, and return the run's id once it has ended."""
        run_id = self.trigger(**{"jobs": [JOB], "from": MONTHS[0], **conf})
        assert self.wait_for_run(run_id) == "success"
        return run_id

    def loads(self) -> dict[str, str]:
        """The run that published each slice, by the slice's id in the ledger."""
        return {row["_id"]: row["run_id"] for row in self.store.ledger.find()}

    def published(self, run_ids: set[str]) -> list[str]:
        """The slices whose task publish succeeded in these runs of bi_monthly, each as often as it did."""
        monthly = AirflowApi(self.api, "bi_monthly")
        return [
            f"{task_id} {run_id.split('__')[1]}"
            for run_id in run_ids
            for (task_id, _), task in monthly.tasks(run_id).items()
            if task_id.endswith(".publish") and task["state"] == "success"
        ]

    def monthly_runs(self) -> set[str]:
        return {run["dag_run_id"] for run in self.get("/dags/bi_monthly/dagRuns", limit=100)["dag_runs"]}


@pytest.fixture(scope="module")
def installation(servers: DatabaseServers) -> Iterator[Installation]:
    with servers.mongo_admin.client() as admin:
        for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging"):
            admin.drop_database(name)
    demo_meg.seed_database(servers.postgres, "meg_au", None)
    for region in REGIONS:
        with servers.postgres.connect(f"meg_{region}") as connection:
            MegFactory(connection).bulk_forms(12)
    settings = {**NO_SCHEDULED_RUNS, "MEG_REGIONS": ",".join(REGIONS), "BI_MAX_MAPPED_TASKS": "1"}
    settings |= servers.connections({region: f"meg_{region}" for region in REGIONS})
    environment = new_airflow(servers, STACK, settings)
    with servers.mongo.client() as client:
        store = Store(client, LIVE_DATABASE)
        for region in ("eu", "uk"):
            with MegReader(region, connect_as_reader(servers, f"meg_{region}"), application_name="test") as meg:
                for name in MONTHS:
                    if f"{JOB}:{region}:{name}" not in MISSING:
                        load_slice(store, meg, monthly_slice(name, region=region), EARLIER_RUN)
        with airflow.run_services(STACK, environment, servers.secret) as services, services.api() as api:
            for dag_id in ("bi_monthly", DAG):
                run_dags.wait_for_dag(api, dag_id)
                api.patch(f"/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
            yield Installation(api, DAG, store, servers)


@pytest.fixture(scope="module")
def first_run(installation: Installation) -> str:
    return installation.run()


def test_one_trigger_loads_what_is_missing(installation: Installation, first_run: str) -> None:
    """One trigger loads every missing slice once and leaves the others alone; a second one finds nothing."""
    runs, loads = installation.monthly_runs(), installation.loads()
    assert set(loads) == {f"{JOB}:{region}:{name}" for region in REGIONS for name in MONTHS}
    assert {id_ for id_, run_id in loads.items() if run_id != EARLIER_RUN.run_id} == MISSING
    expected = sorted(f"{JOB}.{region}.publish {name}" for _, region, name in (id_.split(":") for id_ in MISSING))
    assert sorted(installation.published(runs)) == expected
    labels = [
        task["rendered_map_index"]
        for (task_id, _), task in sorted(installation.tasks(first_run).items())
        if task_id == "load"
    ]
    assert [label[:7] for label in labels] == [MONTHS[3], MONTHS[2], MONTHS[1], MONTHS[0]]
    details = [installation.get(f"/dags/bi_monthly/dagRuns/{run}") for run in runs]
    notes = [run["note"] for run in sorted(details, key=lambda run: run["start_date"])]
    assert notes == [f"{MONTHS[3]}: {JOB} of au, uk", *(f"{name}: {JOB} of au, eu" for name in MONTHS[2::-1])]

    second = installation.run()
    assert installation.monthly_runs() == runs
    assert installation.loads() == loads
    assert installation.tasks(second)["load", -1]["state"] == "skipped"
    assert any("Missing slices: 0" in line for line in installation.log_lines(second, "find"))


@pytest.mark.usefixtures("first_run")
def test_dry_run_lists_and_loads_nothing(installation: Installation) -> None:
    """A dry run lists what is missing, and loads nothing."""
    installation.store.ledger.delete_one({"_id": f"{JOB}:uk:{MONTHS[1]}"})
    runs = installation.monthly_runs()
    run_id = installation.run(dry_run=True)
    assert any(f"{MONTHS[1]}: {JOB} of uk" in line for line in installation.log_lines(run_id, "find"))
    assert installation.monthly_runs() == runs
    installation.run()
    assert f"{JOB}:uk:{MONTHS[1]}" in installation.loads()


@pytest.mark.usefixtures("first_run")
def test_audit_finds_exactly_changed_months(installation: Installation) -> None:
    """The audit names the months whose rows MEG has changed, and publishes nothing."""
    with installation.servers.postgres.connect("meg_uk") as connection:
        factory_session = "INSERT INTO megforms_auditsession SELECT 900, 3, NULL, NULL, 'web', %(at)s, %(at)s, %(at)s"
        connection.execute(factory_session, {"at": pendulum.from_format(MONTHS[2], "YYYY-MM").add(days=3)})
        connection.execute("INSERT INTO megforms_observation SELECT 900, 900, 3, now()")
    loads = installation.loads()
    run_id = installation.run(only_missing=False, dry_run=True)
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/report/xcomEntries/return_value"
    rows = installation.get(path, deserialize=True)["value"]
    assert len(rows) == len(REGIONS) * len(MONTHS)
    different = [row for row in rows if row["changed"] or row["added"] or row["removed"]]
    # The month after shows the growth over the changed one.
    assert {(row["region"], row["period"]) for row in different} == {("uk", MONTHS[2]), ("uk", MONTHS[3])}
    [row] = [row for row in different if row["period"] == MONTHS[2]]
    assert row["in_meg"] - row["published"] == 1
    assert any(f"{MONTHS[2]}  {JOB}" in line for line in installation.log_lines(run_id, "report"))
    assert installation.loads() == loads
