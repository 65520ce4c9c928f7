"""Tests the DAGs under Airflow's real scheduler: catchup, a failed region, clearing, triggers and the UI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from pymongo import MongoClient

from dev import airflow
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.airflow.two_regions import (
    DAG,
    FIRST_MONTH,
    FORMS,
    MONTH_NAMES,
    MONTHS,
    PLANTED_SECRETS,
    THIS_MONTH,
    Installation,
    get_log,
    get_tasks,
    partition_keys,
    run_installation,
)
from tests.airflow_env import AirflowApi
from tests.conftest import STACK
from tests.load_helpers import API_PAUSE, live_raw_documents, monthly_slice, wait_until

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def installation(servers: DatabaseServers) -> Iterator[Installation]:
    with run_installation(servers) as running:
        yield running


def test_failed_region_is_isolated(installation: Installation) -> None:
    """A region that is down delays no other, and clearing its tasks loads it."""
    assert set(installation.catchup_states.values()) == {"failed"}
    monthly = {f"{job}:eu:{name}" for job in ("monthly_submissions", "monthly_sessions") for name in MONTH_NAMES}
    assert installation.published == {*monthly, "top_users:eu"}
    for run_id in installation.catchup_states:
        assert installation.clear(run_id, only_failed=True) == "success"
    assert {name: len(documents) for name, documents in installation.slices().items()} == {
        f"{region} {name}": forms for region, forms in FORMS.items() for name in MONTH_NAMES
    }


def test_failed_runs_are_notified_once(installation: Installation) -> None:
    for run_id in installation.catchup_states:
        wait_until(lambda run_id=run_id: len(installation.listener.about(run_id)) >= 1, 60)
        [message] = installation.listener.about(run_id)
        assert message["title"] == "MEG BI: bi_monthly failed"
        assert "Not published: monthly_sessions uk, monthly_submissions uk, top_users uk." in message["message"]
        assert f"/dags/bi_monthly/runs/{quote(run_id, safe='')}" in message["message"]
        assert message["type"] == "failure"


def test_run_names_its_period(installation: Installation) -> None:
    """The id of a scheduled run names its period; the first line of each task's log names job, region and period."""
    due = [FIRST_MONTH.add(months=number + 1).isoformat() for number in range(MONTHS)]
    assert list(installation.catchup_states) == [
        f"scheduled__{name}__{instant}" for name, instant in zip(MONTH_NAMES, due, strict=True)
    ]
    run_id = next(iter(installation.catchup_states))
    for step, verb, map_index in (("plan", "Planning", -1), ("stage", "Staging", 0), ("publish", "Publishing", -1)):
        lines = installation.log_lines(run_id, f"monthly_submissions.eu.{step}", map_index)
        [line] = [line for line in lines if line.startswith(verb)]
        assert line.startswith(f"{verb} monthly_submissions eu {MONTH_NAMES[0]}, as of {due[0]}")


def test_catchup_loads_each_month(installation: Installation) -> None:
    """Catchup loads each month's own figures."""
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
def test_cleared_tasks_give_same_documents(installation: Installation, cleared: dict[str, Any]) -> None:
    """Cleared tasks give the same documents."""
    before = installation.slices()
    run_id = next(iter(installation.catchup_states))
    assert installation.clear(run_id, **cleared) == "success"
    assert installation.slices() == before


def test_cleared_group_may_shrink(installation: Installation, servers: DatabaseServers) -> None:
    """Airflow keeps the results of mapped tasks that no longer exist; they must not be counted."""
    run_id, before = next(iter(installation.catchup_states)), installation.slices()

    def load_first(forms: int) -> str:
        with servers.postgres.connect("meg_eu") as connection:
            archive = "UPDATE megforms_auditform SET archived_at = CASE WHEN id > %s THEN timestamptz '2021-01-01' END"
            connection.execute(archive, (forms,))
        return installation.clear(run_id, task_ids=["monthly_submissions.eu.plan"])

    assert load_first(10) == "failed"
    [failed] = [task for task in get_tasks(installation, run_id) if task["state"] == "failed"]
    assert failed["task_id"] == "monthly_submissions.eu.publish"
    log = get_log(installation, run_id, failed["task_id"], failed["try_number"])
    assert "Expected: at least 13 of the 25 live documents" in log
    assert "Actual: 10" in log
    for forms in (15, 10, 20, 25):
        assert load_first(forms) == "success"
        assert len(installation.slices()[f"eu {MONTH_NAMES[0]}"]) == forms
    assert installation.slices() == before


def test_triggered_run_loads_selected_regions(installation: Installation) -> None:
    """A triggered run loads the selected regions."""
    before = installation.slices()
    body = {"logical_date": None, "conf": {"period": "2025-02", "regions": ["uk"]}}
    run_id = installation.post(f"/dags/{DAG}/dagRuns", body)["dag_run_id"]
    assert installation.wait_for_run(run_id) == "success"
    assert len(live_raw_documents(installation.store, monthly_slice("2025-02", region="uk"))) == FORMS["uk"]
    assert live_raw_documents(installation.store, monthly_slice("2025-02", region="eu")) == {}
    assert installation.slices() == before


def test_backfill_loads_missing_months(installation: Installation) -> None:
    """A backfill loads missing months."""
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


def test_publish_updates_asset(installation: Installation) -> None:
    """Each publish updates its collection's asset."""
    assets = {asset["name"]: asset for asset in installation.get("/assets", limit=100)["assets"]}
    asset = assets["monthly_submissions"]
    assert asset["uri"] == "x-meg-bi://collections/monthly_submissions"
    events = installation.get("/assets/events", asset_id=asset["id"], limit=100)["asset_events"]
    extras = [event["extra"] for event in events if event["source_run_id"] == next(iter(installation.catchup_states))]
    assert {event["region"] for event in extras} == set(FORMS)
    assert {event["period"] for event in extras} == {MONTH_NAMES[0]}
    assert extras[0].keys() >= {"documents", "previous_documents", "written"}


def test_downstream_dag_runs_per_partition(installation: Installation) -> None:
    """The guide's DAG runs once for a region and month that is published; events of plain assets have no key."""
    dag_id = "region_month_report"
    installation.api.patch(f"/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
    cleared = ["monthly_submissions.uk.publish"]
    assert installation.clear(next(iter(installation.catchup_states)), task_ids=cleared) == "success"
    key = f"uk|{MONTH_NAMES[0]}"
    wait_until(lambda: bool(installation.get(f"/dags/{dag_id}/dagRuns")["dag_runs"]), 60, pause=API_PAUSE)
    [run] = installation.get(f"/dags/{dag_id}/dagRuns")["dag_runs"]
    assert run["partition_key"] == key
    assert installation.wait_for_run(run["dag_run_id"], dag_id) == "success"
    log = installation.get(f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances/report/logs/1", full_content=True)
    assert f"uk has published {MONTH_NAMES[0]}" in str(log)
    keys = partition_keys(installation, "top_users_partitions")
    assert keys == {f"{region}|{name}-01" for region in FORMS for name in [*MONTH_NAMES[1:], THIS_MONTH]}
    assert partition_keys(installation, "top_users") == {None}


def test_dry_run_is_logged(installation: Installation) -> None:
    """A dry run publishes nothing and logs its result."""
    conf = {"period": "2025-03", "jobs": ["monthly_submissions"], "regions": ["uk"], "dry_run": True}
    run_id = installation.post(f"/dags/{DAG}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]
    assert installation.wait_for_run(run_id) == "success"
    states = {task["task_id"]: task["state"] for task in get_tasks(installation, run_id)}
    assert states["monthly_submissions.uk.stage"] == "success"
    assert states["monthly_submissions.uk.publish"] == "skipped"
    assert states["monthly_sessions.uk.plan"] == states["monthly_submissions.eu.plan"] == "skipped"
    assert "documents would replace 0" in get_log(installation, run_id, "monthly_submissions.uk.publish")
    assert live_raw_documents(installation.store, monthly_slice("2025-03", region="uk")) == {}


def test_ui_shows_forms_and_sql(installation: Installation, servers: DatabaseServers) -> None:
    """The UI shows the forms and the SQL without secrets."""
    run_id = next(iter(installation.catchup_states))
    tasks = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances"
    mapped = installation.get(f"{tasks}/monthly_submissions.eu.stage/listMapped")["task_instances"]
    assert [task["rendered_map_index"] for task in mapped] == [
        f"{MONTH_NAMES[0]}: forms 1\N{EN DASH}10",
        f"{MONTH_NAMES[0]}: forms 11\N{EN DASH}25 (15)",
    ]
    rendered = mapped[1]["rendered_fields"]
    assert rendered["forms"] == "forms 11\N{EN DASH}25 (15)"
    assert "FROM megforms_auditsession" in rendered["sql"]
    assert "%(period_start)s" in rendered["sql"]
    text = str(installation.get(tasks, limit=100)) + get_log(installation, run_id, "monthly_submissions.eu.plan")
    assert not [secret for secret in servers.secret.values() if secret in text]


def test_publish_links_to_report(installation: Installation) -> None:
    """A publish task links to its report."""
    run_id = next(iter(installation.catchup_states))
    tasks = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances"
    links = installation.get(f"{tasks}/monthly_submissions.eu.publish/links")["extra_links"]
    assert links["BI report"].endswith("/bi-reports/#monthly_submissions")
    assert not links.get("Collection")


def test_xcom_holds_ids_and_counts_only(installation: Installation) -> None:
    """Only ids and counts travel through XCom."""
    run_id = next(iter(installation.catchup_states))
    entries = installation.get(f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/~/xcomEntries", limit=200)["xcom_entries"]
    xcoms = {}
    for entry in entries:
        path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{entry['task_id']}/xcomEntries/{entry['key']}"
        value = installation.get(path, map_index=entry["map_index"], deserialize=True)["value"]
        xcoms[entry["task_id"], entry["key"], entry["map_index"]] = value
    load_id = xcoms["monthly_submissions.eu.plan", "load", -1]
    assert xcoms["monthly_submissions.eu.plan", "return_value", -1] == [
        {"load": load_id, "forms": "forms 1\N{EN DASH}10"},
        {"load": load_id, "forms": "forms 11\N{EN DASH}25 (15)"},
    ]
    assert xcoms["monthly_submissions.eu.stage", "return_value", 1] == 15
    load = installation.store.loads.find_one({"_id": load_id, "run_id": run_id, "region": "eu"})
    assert load
    assert load["tasks"] == [[[*range(1, 11)]], [[*range(11, 21)], [*range(21, 26)]]]
    assert set(xcoms["monthly_submissions.eu.publish", "return_value", -1]) == {
        "documents",
        "previous_documents",
        "written",
    }
    assert "Form 1" not in str(xcoms)


def test_watch_reports_lateness_once(installation: Installation) -> None:
    """bi_watch reports a slice that the ledger has lost once, and once that it has been published."""
    slice_id, name = f"monthly_submissions:uk:{MONTH_NAMES[0]}", f"monthly_submissions uk: {MONTH_NAMES[0]}"
    watch = AirflowApi(installation.api, "bi_watch")
    installation.api.patch("/dags/bi_watch", json={"is_paused": False}).raise_for_status()
    row = installation.store.ledger.find_one_and_delete({"_id": slice_id})
    assert row

    def messages_about_slice() -> list[dict[str, Any]]:
        for _ in range(2):
            assert watch.wait_for_run(watch.trigger()) == "success"
        return [message for message in installation.listener.messages if name in message["message"]]

    [late] = messages_about_slice()
    assert late["type"] == "warning"
    assert "/dags/bi_backfill" in late["message"]
    installation.store.ledger.insert_one(row)
    _, published = messages_about_slice()
    assert (published["type"], published["title"]) == ("success", "MEG BI: 1 no longer late")


def test_publishes_start_digest(installation: Installation) -> None:
    """A publish starts bi_digest, which sends the last month once, whatever is published afterwards."""
    digest = AirflowApi(installation.api, "bi_digest")
    installation.api.patch("/dags/bi_digest", json={"is_paused": False}).raise_for_status()

    def publish_and_get_run(count: int) -> tuple[str, str]:
        """Publish again, and return the id of the run that this starts, and the state of its task."""
        cleared = ["monthly_sessions.uk.publish"]
        assert installation.clear(next(iter(installation.catchup_states)), task_ids=cleared) == "success"
        wait_until(lambda: len(installation.get("/dags/bi_digest/dagRuns")["dag_runs"]) >= count, 60, pause=API_PAUSE)
        run_id = max(run["dag_run_id"] for run in installation.get("/dags/bi_digest/dagRuns")["dag_runs"])
        assert digest.wait_for_run(run_id) == "success"
        return run_id, digest.tasks(run_id)["send", -1]["state"]

    _, state = publish_and_get_run(1)
    assert state == "success"
    run_id, state = publish_and_get_run(2)
    assert state == "skipped"
    assert any("the digest of this month was sent" in line for line in digest.log_lines(run_id, "send"))
    messages = [message for message in installation.listener.messages if "MEG usage in" in message["title"]]
    assert len(messages) == 1
    assert "Submissions: " in messages[0]["message"]
    assert installation.store.digest.distinct("_id") == [MONTH_NAMES[-1]]


def test_doctor_dag_logs_report(installation: Installation) -> None:
    """The doctor DAG succeeds and logs its report."""
    installation.api.patch("/dags/bi_doctor", json={"is_paused": False}).raise_for_status()
    run_id = installation.post("/dags/bi_doctor/dagRuns", {"logical_date": None})["dag_run_id"]
    assert installation.wait_for_run(run_id, "bi_doctor") == "success"
    log = str(installation.get(f"/dags/bi_doctor/dagRuns/{run_id}/taskInstances/examine/logs/1", full_content=True))
    assert "0 failed" in log
    assert "MEG uk" in log
    assert "names of people are replaced" in log


def test_pseudonymised_region_has_no_names(installation: Installation) -> None:
    """A pseudonymised region has no names of people."""
    names = {region: installation.store.live["top_users"].distinct("user_name", {"region": region}) for region in FORMS}
    assert names["eu"] == ["Aoife Byrne"]
    assert all(name.startswith("person-") for name in names["uk"])
    assert len(names["uk"]) == 1


def test_secrets_appear_nowhere(installation: Installation, servers: DatabaseServers) -> None:
    """No secret appears anywhere, and names of people appear in top_users only."""
    texts: dict[str, str] = {}
    for folder in (STACK / "logs", STACK / "airflow" / "logs"):
        texts |= {str(path): path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()}
    with servers.postgres.connect(airflow.METADATA_DATABASE) as metadata:
        for (table,) in metadata.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            rows = metadata.execute(f"SELECT t::text FROM {table} AS t").fetchall()
            texts[f"metadata table {table}"] = "\n".join(row[0] for row in rows)
    for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging"):
        database = installation.store.client[name]
        for collection in database.list_collection_names():
            texts[f"collection {name}.{collection}"] = str(list(database[collection].find()))
    assert len(texts) > 100
    assert {"metadata table xcom", "metadata table rendered_task_instance_fields", "collection bi.bi_loads"} <= set(
        texts
    )
    assert "FROM megforms_auditsession" in texts["metadata table rendered_task_instance_fields"]
    secrets = {**servers.secret, **PLANTED_SECRETS}
    assert [(name, place) for place, text in texts.items() for name, secret in secrets.items() if secret in text] == []
    places_with_names = {place for place, text in texts.items() if "Byrne" in text}
    assert places_with_names == {"collection bi.top_users", "collection bi_staging.top_users"}


def test_staging_has_own_database(installation: Installation) -> None:
    """Staged data is in a database of its own."""
    client: MongoClient[dict[str, Any]] = installation.store.client
    loaded = {"monthly_submissions", "monthly_sessions", "top_users"}
    assert set(client[LIVE_DATABASE].list_collection_names()) == {*loaded, "bi_loads", "bi_watch", "bi_digest"}
    assert set(client[f"{LIVE_DATABASE}_staging"].list_collection_names()) == {
        *loaded,
        "publish_locks",
        "loads",
        "region_starts",
        "failures",  # of the slice that shrank
    }
