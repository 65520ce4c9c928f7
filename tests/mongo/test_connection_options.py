"""Tests that a load works under any read and write options of the connection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bi_ops.airflow.connections import open_store
from bi_ops.airflow.reports_connection import open_reports_store
from bi_ops.doctor.mongo_checks import check_mongo
from bi_ops.doctor.results import Status
from bi_ops.errors import ConnectionConfigError
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from bi_ops.settings import Settings
from dev.embedded_stack import DatabaseServers
from tests.load_helpers import live_submissions, load_slice, monthly_slice
from tests.meg_factory import MegFactory, utc

OPTIONS: list[dict[str, Any]] = [
    {"readPreference": "secondary"},
    {"readPreference": "secondaryPreferred"},
    {"readPreference": "primaryPreferred"},
    {"readPreference": "nearest", "maxStalenessSeconds": 90},
    {"readPreference": "secondary", "readPreferenceTags": "dc:nowhere"},
    {"w": 0},
    {"w": "0"},
    {"w": 1},
    {"w": "majority", "wTimeoutMS": 1},
    {"w": 5},
    {"readConcernLevel": "local"},
    {"readConcernLevel": "available"},
    {"readConcernLevel": "majority"},
    {"readConcernLevel": "snapshot"},
    {"readConcernLevel": "linearizable"},
    {"journal": False},
    {"w": 0, "journal": False},
    {"retryWrites": False, "retryReads": False},
    {"maxPoolSize": 1},
    {"tz_aware": False, "uuidRepresentation": "standard", "compressors": "zlib"},
    {"timeoutMS": 60_000},
]


def set_options(monkeypatch: pytest.MonkeyPatch, servers: DatabaseServers, options: dict[str, Any]) -> None:
    fields = json.loads(servers.connections({})["AIRFLOW_CONN_BI_MONGO"])
    value = {**fields, "extra": {"authSource": "admin", **options}}
    monkeypatch.setenv("AIRFLOW_CONN_BI_MONGO", json.dumps(value))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()))
def test_load_works_under_connection_options(
    servers: DatabaseServers,
    store: Store,
    meg: MegReader,
    meg_factory: MegFactory,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    """Two loads, one of them in several transactions, the doctor and the reports' connection work."""
    set_options(monkeypatch, servers, options)
    meg_factory.bulk_forms(25)
    with open_store("here") as opened:
        findings = list(check_mongo(opened, Settings.from_env({"MEG_REGIONS": "eu"})))
        assert [finding for finding in findings if finding.status is Status.FAILED] == []
        load_slice(opened, meg, monthly_slice())
        meg_factory.session(7, utc(2026, 10, 9))
        before = live_submissions(store, monthly_slice())
        load_slice(opened, meg, monthly_slice(), DagRunRef("bi_monthly", "again"), max_transaction_documents=10)
        assert len(before) == 25
        assert live_submissions(store, monthly_slice()) == {**before, 7: before[7] + 1}
    with open_reports_store() as reports:
        assert reports.ledger.count_documents({}) == 1
    assert store.client["admin"].command("ping")


@pytest.mark.parametrize(
    "options",
    [{"w": 0, "journal": True}, {"readPreference": "primary", "readPreferenceTags": "dc:x"}, {"readPreference": "x"}],
    ids=str,
)
def test_impossible_options_are_refused(
    servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    set_options(monkeypatch, servers, options)
    with pytest.raises(ConnectionConfigError, match="driver cannot use this connection") as caught, open_store("x"):
        pass
    assert not caught.value.retryable
