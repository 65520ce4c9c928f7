"""Tests `airflow dags test` with a metadata database of its own, configured by connections and settings only."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from bi_ops.mongo.store import Store
from dev import demo_meg
from dev.embedded_stack import WRITER_USER, DatabaseServers
from tests.airflow_env import new_airflow
from tests.conftest import ROOT, STACK
from tests.load_helpers import live_documents, monthly_slice
from tests.meg_factory import MegFactory

AirflowCommand = Callable[..., subprocess.CompletedProcess[str]]


def uris(servers: DatabaseServers) -> dict[str, str]:
    """The connections as URIs; MongoDB's without a schema, and without the name of its replica set."""
    pg, mongo = servers.postgres, servers.mongo
    reader, writer = (quote(servers.secret[name], safe="") for name in ("reader", "writer"))
    return {
        "AIRFLOW_CONN_MEG_EU": f"postgresql://{demo_meg.READER_ROLE}:{reader}@{pg.host}:{pg.port}/meg_eu",
        "AIRFLOW_CONN_MEG_UK": f"postgresql://{demo_meg.READER_ROLE}:{reader}@{pg.host}:1/meg_uk",
        "AIRFLOW_CONN_BI_MONGO": f"mongo://{WRITER_USER}:{writer}@{mongo.host}:{mongo.port}/?authSource=admin",
    }


@pytest.fixture(scope="module")
def airflow(servers: DatabaseServers, tmp_path_factory: pytest.TempPathFactory) -> AirflowCommand:
    folder = tmp_path_factory.mktemp("airflow")
    environment = new_airflow(servers, STACK, {"PYTHONPATH": str(ROOT / "tests" / "policy"), **uris(servers)})

    def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["airflow", *words],
            cwd=folder,
            env={**environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    return run


def test_dags_test_names_region_that_is_down(
    airflow: AirflowCommand, servers: DatabaseServers, store: Store, meg_factory: MegFactory
) -> None:
    """`airflow dags test` loads a month and names the region that is down."""
    meg_factory.bulk_forms(11)
    conf = json.dumps({"period": "2026-10", "jobs": ["monthly_submissions"]})
    result = airflow("dags", "test", "bi_monthly", "-c", conf, BI_AGGREGATE="1", MEG_REGIONS="eu,uk")
    assert "MEG uk (connection meg_uk): MEG cannot be read" in result.stdout
    assert result.returncode != 0
    assert [document["submissions"] for document in live_documents(store, monthly_slice())] == [1] * 11
    assert store.ledger.distinct("_id") == ["monthly_submissions:eu:2026-10"]
    secrets = servers.secret.values()
    assert not [secret for secret in secrets if secret in result.stdout]


def test_dags_test_gate_off_skips_all(airflow: AirflowCommand, store: Store, meg_factory: MegFactory) -> None:
    """While BI_AGGREGATE is off every task is skipped, and the log gives the reason."""
    meg_factory.bulk_forms(11)
    result = airflow("dags", "test", "bi_monthly", "2026-11-01", BI_AGGREGATE="off", MEG_REGIONS="eu")
    assert result.returncode == 0, result.stdout
    assert "BI_AGGREGATE is off" in result.stdout
    assert "clear this run" in result.stdout
    assert store.live.list_collection_names() == []


@pytest.mark.usefixtures("store")
def test_dags_test_names_missing_connection(airflow: AirflowCommand) -> None:
    """A missing connection is named with a hint."""
    result = airflow("dags", "test", "bi_monthly", "2026-11-01", BI_AGGREGATE="1", MEG_REGIONS="mars")
    assert result.returncode != 0
    assert "connection meg_mars" in result.stdout
    assert "AIRFLOW_CONN_MEG_MARS" in result.stdout


@pytest.mark.usefixtures("store")
def test_openlineage_records_source_tables(airflow: AirflowCommand, meg_factory: MegFactory, tmp_path: Path) -> None:
    """OpenLineage's event names the tables that a collection is made of."""
    meg_factory.bulk_forms(11)
    events = tmp_path / "events.json"
    result = airflow(
        *("dags", "test", "bi_monthly", "-c", json.dumps({"period": "2026-10", "jobs": ["monthly_submissions"]})),
        BI_AGGREGATE="1",
        MEG_REGIONS="eu",
        AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps({"type": "file", "log_file_path": str(events), "append": True}),
    )
    assert result.returncode == 0, result.stdout
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    complete = {event["job"]["name"]: event for event in lines if event["eventType"] == "COMPLETE"}
    staged = complete["bi_monthly.monthly_submissions.eu.stage"]
    tables = {dataset["name"].rpartition(".")[2] for dataset in staged["inputs"]}
    assert {"megforms_auditsession", "megforms_observation", "megforms_auditform"} <= tables
    assert all(dataset["name"].startswith("meg_eu.public.") for dataset in staged["inputs"])
    [published] = complete["bi_monthly.monthly_submissions.eu.publish"]["outputs"]
    assert published["name"] == "bi.monthly_submissions"
    assert published["outputFacets"]["outputStatistics"]["rowCount"] == 11
    fields = {field["name"]: field["type"] for field in published["facets"]["schema"]["fields"]}
    assert fields["submissions"] == "integer"
