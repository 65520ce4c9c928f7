"""Everything under Airflow's real scheduler: catchup, a region down, clearing, triggering, and what the UI shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any
from urllib.parse import quote

import pendulum
import pytest
from pymongo import MongoClient

from bi_ops.store import Store
from dev import airflow, catchup
from dev.stack import DATABASE, Databases
from tests.conftest import ROOT, STACK
from tests.installations import AirflowApi, new_airflow
from tests.listener import Listener, listening
from tests.loads import live_bytes, month, until
from tests.megs import MegRows

DAG = "bi_monthly"
FORMS = {"eu": 25, "uk": 11}
MONTHS = 2
PLANTED = {name: token_urlsafe(24) for name in ("pseudonyms", "notify")}
"""Secrets that must be found nowhere, beside those of the stack."""
FIRST_MONTH = pendulum.now("UTC").start_of("month").subtract(months=MONTHS)
MONTH_NAMES = [FIRST_MONTH.add(months=number).format("YYYY-MM") for number in range(MONTHS)]


@dataclass(frozen=True)
class Installation(AirflowApi):
    """A running Airflow over both regions, one of which was down when it caught up.

    Attributes:
        store: The MongoDB databases.
        caught_up: The state of each run after catchup with the region uk down, by run id.
        published: The ledger's ids after that.
        listener: Who was told of what went wrong.
    """

    store: Store
    caught_up: dict[str, str]
    published: set[str]
    listener: Listener

    def slices(self) -> dict[str, dict[str, bytes]]:
        """Every live slice to the byte, but for the load stamps."""
        return {
            f"{region} {name}": live_bytes(self.store, month(name, region=region))
            for region in FORMS
            for name in MONTH_NAMES
        }


@pytest.fixture(scope="module")
def installation(servers: Databases) -> Iterator[Installation]:
    with servers.mongo_admin.client() as admin:
        for name in (DATABASE, f"{DATABASE}_staging"):
            admin.drop_database(name)
    for region, forms in FORMS.items():
        with servers.postgres.connect(f"meg_{region}") as connection:
            rows = MegRows(connection)
            rows.many_forms(forms)
            at = FIRST_MONTH.add(days=40)
            connection.execute("UPDATE megforms_auditsession SET submitted_at = %s, started_at = %s", (at, at))
            somebody = rows.auditor(1_000_000)
            connection.execute("UPDATE megforms_auditsession SET auditor_id = %s", (somebody,))
    settings = {
        "BI_AGGREGATE": "1",
        "MEG_REGIONS": ",".join(FORMS),
        "BI_MAX_MAPPED_TASKS": "2",
        "BI_START_DATE": FIRST_MONTH.to_date_string(),
        "BI_PSEUDONYMISE": "uk",
        "AIRFLOW_CONN_BI_PSEUDONYMS": json.dumps({"conn_type": "generic", "password": PLANTED["pseudonyms"]}),
        "PYTHONPATH": str(ROOT / "tests" / "policy"),
        **servers.connections({region: f"meg_{region}" for region in FORMS}),
    }
    environment = new_airflow(servers, STACK, settings)
    with (
        listening() as listener,
        airflow.running(STACK, environment | notifying(listener), servers.secret) as up,
        up.api() as api,
        servers.mongo.client() as client,
    ):
        store = Store(client, DATABASE)
        with region_down(servers, "uk"):
            caught_up = catchup.catch_up(
                api, catchup.Wanted(DAG, scheduled_after=FIRST_MONTH, count=MONTHS), seconds=300
            )[DAG]
        yield Installation(api, DAG, store, caught_up, set(store.ledger.distinct("_id")), listener)


def notifying(listener: Listener) -> dict[str, str]:
    """The connection by which people are told."""
    where = {"path": f"json://bi:{PLANTED['notify']}@127.0.0.1:{listener.port}"}
    return {"AIRFLOW_CONN_BI_NOTIFY": json.dumps({"conn_type": "apprise", "extra": {"config": where}})}


@contextmanager
def region_down(servers: Databases, region: str) -> Iterator[None]:
    """A region's role cannot log in while the block runs."""

    def allow(word: str) -> None:
        with servers.postgres.connect() as admin:
            admin.execute(f"ALTER DATABASE meg_{region} ALLOW_CONNECTIONS {word}")

    allow("false")
    try:
        yield
    finally:
        allow("true")


def test_a_region_that_is_down_holds_up_no_other_and_is_healed_by_clearing(installation: Installation) -> None:
    assert set(installation.caught_up.values()) == {"failed"}
    monthly = {f"{job}:eu:{name}" for job in ("monthly_submissions", "monthly_sessions") for name in MONTH_NAMES}
    assert installation.published == {*monthly, "top_users:eu"}
    for run_id in installation.caught_up:
        assert installation.clear(run_id, only_failed=True) == "success"
    assert {name: len(documents) for name, documents in installation.slices().items()} == {
        f"{region} {name}": forms for region, forms in FORMS.items() for name in MONTH_NAMES
    }


def test_failed_runs_are_notified_once(installation: Installation) -> None:
    for run_id in installation.caught_up:
        until(lambda run_id=run_id: len(installation.listener.about(run_id)) >= 1, 60)
        [failed] = installation.listener.about(run_id)
        assert failed["title"] == "MEG BI: bi_monthly failed"
        assert "Not published: monthly_sessions uk, monthly_submissions uk, top_users uk." in failed["message"]
        assert f"/dags/bi_monthly/runs/{quote(run_id, safe='')}" in failed["message"]
        assert failed["type"] == "failure"


def test_catchup_gave_each_month_its_own_figures(installation: Installation) -> None:
    for name, count in zip(MONTH_NAMES, (0, 1), strict=True):
        documents = installation.store.live["monthly_submissions"].find({"region": "eu", "period": name})
        assert {document["submissions"] for document in documents} == {count}


@pytest.mark.parametrize(
    "cleared",
    [
        {"task_ids": [["monthly_submissions.eu.stage", 1]]},
        {"task_ids": ["monthly_submissions.eu.plan"]},
        {"task_ids": ["monthly_submissions.uk.publish"]},
        {"task_ids": ["gate"]},
    ],
    ids=["one mapped task", "a region's group", "publish alone", "everything"],
)
def test_clearing_gives_the_same_documents(installation: Installation, cleared: dict[str, Any]) -> None:
    before = installation.slices()
    run_id = next(iter(installation.caught_up))
    assert installation.clear(run_id, **cleared) == "success"
    assert installation.slices() == before


def test_a_cleared_group_may_have_fewer_tasks_than_before(installation: Installation, servers: Databases) -> None:
    """Airflow keeps what the surplus mapped tasks once returned, which must not be counted."""
    run_id, before = next(iter(installation.caught_up)), installation.slices()

    def load_first(forms: int) -> str:
        with servers.postgres.connect("meg_eu") as connection:
            archive = "UPDATE megforms_auditform SET archived_at = CASE WHEN id > %s THEN timestamptz '2021-01-01' END"
            connection.execute(archive, (forms,))
        return installation.clear(run_id, task_ids=["monthly_submissions.eu.plan"])

    assert load_first(10) == "failed"
    [failed] = [task for task in tasks_of(installation, run_id) if task["state"] == "failed"]
    assert failed["task_id"] == "monthly_submissions.eu.publish"
    log = log_of(installation, run_id, failed["task_id"], failed["try_number"])
    assert "Expected: at least 13 of the 25 documents that are live" in log
    assert "Actual: 10" in log
    for forms in (15, 10, 20, 25):
        assert load_first(forms) == "success"
        assert len(installation.slices()[f"eu {MONTH_NAMES[0]}"]) == forms
    assert installation.slices() == before


def test_a_triggered_month_is_loaded_for_the_regions_picked(installation: Installation) -> None:
    before = installation.slices()
    body = {"logical_date": None, "conf": {"period": "2025-02", "regions": ["uk"]}}
    run_id = installation.post(f"/dags/{DAG}/dagRuns", body)["dag_run_id"]
    assert installation.state_of(run_id) == "success"
    assert len(live_bytes(installation.store, month("2025-02", region="uk"))) == FORMS["uk"]
    assert live_bytes(installation.store, month("2025-02", region="eu")) == {}
    assert installation.slices() == before


def test_a_backfill_heals_months_that_are_missing(installation: Installation) -> None:
    before = installation.slices()
    for job in ("monthly_submissions", "monthly_sessions"):
        installation.store.live[job].delete_many({"period": {"$in": MONTH_NAMES}})
    body = {
        "dag_id": DAG,
        "from_date": FIRST_MONTH.isoformat(),
        "to_date": FIRST_MONTH.add(months=MONTHS - 1).isoformat(),
        "reprocess_behavior": "completed",
        "max_active_runs": 1,
    }
    backfill = installation.post("/backfills", body)
    deadline = time.monotonic() + 300
    while installation.get(f"/backfills/{backfill['id']}")["completed_at"] is None:
        assert time.monotonic() < deadline, "the backfill did not end"
        time.sleep(1)
    assert installation.slices() == before


def tasks_of(installation: Installation, run_id: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = installation.get(f"/dags/{DAG}/dagRuns/{run_id}/taskInstances", limit=100)[
        "task_instances"
    ]
    return tasks


def test_each_publish_updates_its_collections_asset(installation: Installation) -> None:
    assets = {asset["name"]: asset for asset in installation.get("/assets", limit=100)["assets"]}
    asset = assets["monthly_submissions"]
    assert asset["uri"] == "x-meg-bi://collections/monthly_submissions"
    events = installation.get("/assets/events", asset_id=asset["id"], limit=100)["asset_events"]
    told = [event["extra"] for event in events if event["source_run_id"] == next(iter(installation.caught_up))]
    assert {event["region"] for event in told} == set(FORMS)
    assert {event["period"] for event in told} == {MONTH_NAMES[0]}
    assert told[0].keys() >= {"documents", "previous_documents", "written"}


def test_a_dry_run_publishes_nothing_and_says_so(installation: Installation) -> None:
    conf = {"period": "2025-03", "jobs": ["monthly_submissions"], "regions": ["uk"], "dry_run": True}
    run_id = installation.post(f"/dags/{DAG}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]
    assert installation.state_of(run_id) == "success"
    states = {task["task_id"]: task["state"] for task in tasks_of(installation, run_id)}
    assert states["monthly_submissions.uk.stage"] == "success"
    assert states["monthly_submissions.uk.publish"] == "skipped"
    assert states["monthly_sessions.uk.plan"] == states["monthly_submissions.eu.plan"] == "skipped"
    assert "documents would replace 0" in log_of(installation, run_id, "monthly_submissions.uk.publish")
    assert live_bytes(installation.store, month("2025-03", region="uk")) == {}


def log_of(installation: Installation, run_id: str, task_id: str, attempt: int = 1) -> str:
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
    return str(installation.get(path, full_content=True))


def test_the_ui_names_the_forms_and_shows_the_sql_without_secrets(
    installation: Installation, servers: Databases
) -> None:
    run_id = next(iter(installation.caught_up))
    tasks = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances"
    mapped = installation.get(f"{tasks}/monthly_submissions.eu.stage/listMapped")["task_instances"]
    assert [task["rendered_map_index"] for task in mapped] == [
        "1 to 10: Form 1, Form 2, Form 3 and 7 more",
        "11 to 25: Form 11, Form 12, Form 13 and 12 more",
    ]
    rendered = mapped[1]["rendered_fields"]
    assert rendered["chunks"] == [[*range(11, 21)], [*range(21, 26)]]
    assert "FROM megforms_auditsession" in rendered["sql"]
    assert "%(period_start)s" in rendered["sql"]
    everything = str(installation.get(tasks, limit=100)) + log_of(installation, run_id, "monthly_submissions.eu.plan")
    assert not [secret for secret in servers.secret.values() if secret in everything]


def test_a_publish_leads_to_its_report(installation: Installation) -> None:
    run_id = next(iter(installation.caught_up))
    tasks = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances"
    links = installation.get(f"{tasks}/monthly_submissions.eu.publish/links")["extra_links"]
    assert links["BI report"].endswith("/bi-reports/#monthly_submissions")
    assert not links.get("Collection")


def test_only_ids_and_counts_travel_through_xcom(installation: Installation) -> None:
    run_id = next(iter(installation.caught_up))
    entries = installation.get(f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/~/xcomEntries", limit=200)["xcom_entries"]
    found = {}
    for entry in entries:
        path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{entry['task_id']}/xcomEntries/{entry['key']}"
        value = installation.get(path, map_index=entry["map_index"], deserialize=True)["value"]
        found[entry["task_id"], entry["key"], entry["map_index"]] = value
    assert found["monthly_submissions.eu.plan", "return_value", -1] == [
        [[*range(1, 11)]],
        [[*range(11, 21)], [*range(21, 26)]],
    ]
    assert found["monthly_submissions.eu.stage", "return_value", 1] == 15
    load_id = found["monthly_submissions.eu.plan", "load", -1]
    assert installation.store.loads.find_one({"_id": load_id, "run_id": run_id, "region": "eu"})
    assert set(found["monthly_submissions.eu.publish", "return_value", -1]) == {
        "documents",
        "previous_documents",
        "written",
    }
    assert "Form 1" not in str(found)


def test_the_doctor_is_well_and_its_report_is_in_the_log(installation: Installation) -> None:
    installation.api.patch("/dags/bi_doctor", json={"is_paused": False}).raise_for_status()
    run_id = installation.post("/dags/bi_doctor/dagRuns", {"logical_date": None})["dag_run_id"]
    assert installation.state_of(run_id, "bi_doctor") == "success"
    log = str(installation.get(f"/dags/bi_doctor/dagRuns/{run_id}/taskInstances/examine/logs/1", full_content=True))
    assert "0 FAILED" in log
    assert "MEG uk" in log
    assert "names are replaced" in log


def test_names_are_replaced_where_a_client_demands_it(installation: Installation) -> None:
    names = {region: installation.store.live["top_users"].distinct("user_name", {"region": region}) for region in FORMS}
    assert names["eu"] == ["Aoife Byrne"]
    assert all(name.startswith("person-") for name in names["uk"])
    assert len(names["uk"]) == 1


def test_no_secret_is_in_any_log_template_xcom_or_collection(installation: Installation, servers: Databases) -> None:
    """And no name of a person anywhere but in the top users."""
    found: dict[str, str] = {}
    for folder in (STACK / "logs", STACK / "airflow" / "logs"):
        found |= {str(path): path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}
    with servers.postgres.connect(airflow.DATABASE) as metadata:
        for (table,) in metadata.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            rows = metadata.execute(f"SELECT t::text FROM {table} AS t").fetchall()
            found[f"metadata table {table}"] = "\n".join(row[0] for row in rows)
    for name in (DATABASE, f"{DATABASE}_staging"):
        database = installation.store.client[name]
        for collection in database.list_collection_names():
            found[f"collection {name}.{collection}"] = str(list(database[collection].find()))
    assert len(found) > 100
    assert {"metadata table xcom", "metadata table rendered_task_instance_fields", "collection bi.bi_loads"} <= set(
        found
    )
    assert "FROM megforms_auditsession" in found["metadata table rendered_task_instance_fields"]
    secrets = {**servers.secret, **PLANTED}
    assert [(name, where) for where, text in found.items() for name, secret in secrets.items() if secret in text] == []
    named = {where for where, text in found.items() if "Byrne" in text}
    assert named == {"collection bi.top_users", "collection bi_staging.top_users"}


def test_what_is_staged_lives_in_a_database_of_its_own(installation: Installation) -> None:
    client: MongoClient[dict[str, Any]] = installation.store.client
    loaded = {"monthly_submissions", "monthly_sessions", "top_users"}
    assert set(client[DATABASE].list_collection_names()) == {*loaded, "bi_loads"}
    assert set(client[f"{DATABASE}_staging"].list_collection_names()) == {*loaded, "publishing", "loads"}
