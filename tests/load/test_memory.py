"""Tests the memory that a load needs, for large rows and many rows, in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
from multiprocessing.connection import Connection
from typing import Any

import psycopg
import pytest
from pymongo import MongoClient

from bi_ops.catalog.sql_templates import render_sql
from bi_ops.errors import InvalidSourceRowError
from bi_ops.load import documents
from bi_ops.load.publish import publish
from bi_ops.load.stage import stage
from bi_ops.load.staged_loads import LoadStates
from bi_ops.meg.query_guard import MAX_TEXT_BYTES
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.load.test_transactions import failing
from tests.load_helpers import (
    load_slice,
    make_slice,
    monthly_slice,
    plan_slice,
    planned_tasks,
    stage_documents,
    stage_slice,
)
from tests.meg_factory import MegFactory, connect_as_reader, utc

LIMIT_MB = 150
"""The memory that a task may use in addition to Airflow's own."""
FORMS = 4_000


def in_own_process(target: Any, *arguments: Any) -> float:
    """Run a function in a new process, and return by how many megabytes its peak grew."""
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, sender))
    process.start()
    sender.close()
    growth: float = receiver.recv()
    process.join()
    return growth


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def open_store(uri: str) -> Store:
    return Store(MongoClient(uri), LIVE_DATABASE)


def mongo_uri(servers: DatabaseServers) -> str:
    server = servers.mongo
    return f"mongodb://{server.login}:{server.password}@{server.host}:{server.port}/?directConnection=true"


def stage_in_process(uri: str, conninfo: str, load_id: str, out: Connection) -> None:
    store = open_store(uri)
    load = LoadStates(store).get(load_id, "")
    with MegReader("eu", lambda: psycopg.connect(conninfo), application_name="test") as meg:
        meg.clock()
        initial_peak = peak_mb()
        for task in range(len(planned_tasks(store, load))):
            for _ in stage(meg, store, load, task, sql=render_sql(f"{load.slice.job.name}.sql")):
                pass
    out.send(peak_mb() - initial_peak)


def publish_in_process(uri: str, load_id: str, out: Connection) -> None:
    store = open_store(uri)
    load = LoadStates(store).get(load_id, "")
    initial_peak = peak_mb()
    publish(store, load, max_shrink=0.5)
    out.send(peak_mb() - initial_peak)


def conninfo(servers: DatabaseServers) -> str:
    with connect_as_reader(servers, "meg_eu")() as connection:
        return f"{connection.info.dsn} password={servers.secret['reader']}"


@pytest.mark.parametrize("job", ["monthly_submissions", "forms"])
def test_long_names_fit_memory(
    store: Store, servers: DatabaseServers, meg: MegReader, meg_factory: MegFactory, job: str
) -> None:
    """Names of the maximum length in every row fit into the limit."""
    meg_factory.bulk_forms(FORMS)
    meg_factory.connection.execute("UPDATE megforms_auditform SET name = repeat('n', %s)", (MAX_TEXT_BYTES,))
    meg_factory.connection.execute("UPDATE megforms_institution SET name = repeat('i', %s)", (MAX_TEXT_BYTES,))
    load = plan_slice(store, meg, make_slice(job, utc(2026, 11, 1)), max_tasks=4)
    uri = mongo_uri(servers)
    assert in_own_process(stage_in_process, uri, conninfo(servers), load.id) < LIMIT_MB
    assert in_own_process(publish_in_process, uri, load.id) < LIMIT_MB
    assert store.live[job].count_documents({}) == FORMS


@pytest.mark.parametrize("size", [MAX_TEXT_BYTES + 1, 2**20, 50 * 2**20])
def test_oversized_name_is_refused(store: Store, meg: MegReader, meg_factory: MegFactory, size: int) -> None:
    """The row and the column are named, and the name is never fetched."""
    institution = meg_factory.bulk_forms(300)
    meg_factory.connection.execute("UPDATE megforms_institution SET name = repeat('n', %s)", (size,))
    initial_peak = peak_mb()
    with pytest.raises(InvalidSourceRowError, match=rf"form_id 1\b.*invalid value in institution_name.*{size} bytes"):
        stage_slice(store, meg, monthly_slice())
    with pytest.raises(InvalidSourceRowError, match=rf"institution_id {institution}.*invalid value in name"):
        load_slice(store, meg, make_slice("institutions", utc(2026, 11, 1)))
    assert peak_mb() - initial_peak < LIMIT_MB


@pytest.mark.parametrize(
    ("addresses", "message"), [(32_000, "the document is too large"), (40_000, "invalid value in ip_allowlist")]
)
def test_oversized_list_is_refused(
    store: Store, meg: MegReader, meg_factory: MegFactory, monkeypatch: pytest.MonkeyPatch, addresses: int, message: str
) -> None:
    """A list of texts is bounded as a whole, and so is the document."""
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 2**18)
    institution = meg_factory.institution()
    meg_factory.connection.execute(
        "INSERT INTO client_management_securitysettings (institution_id, ip_allowlist)"
        " VALUES (%s, array_fill('10.0.0.1'::text, ARRAY[%s]))",
        (institution, addresses),
    )
    with pytest.raises(InvalidSourceRowError, match=rf"invalid row \(institution_id {institution}\): {message}"):
        load_slice(store, meg, make_slice("security_risk_clients", utc(2026, 11, 1)))


def test_retried_transaction_keeps_no_memory(store: Store, servers: DatabaseServers) -> None:
    """A commit that fails for a transient reason is retried, and no attempt keeps its documents in memory."""
    load = stage_documents(
        store, monthly_slice(), dict.fromkeys(range(40_000), 1), DagRunRef("bi_monthly", "r"), form_name="x" * 400
    )
    uri = mongo_uri(servers)
    growth = in_own_process(publish_in_process, uri, load.id)
    second_load = stage_documents(store, monthly_slice("2026-09"), dict.fromkeys(range(40_000), 1), form_name="x" * 400)
    data = {"errorCode": 112, "errorLabels": ["TransientTransactionError"], "failCommands": ["commitTransaction"]}
    with failing(servers, 12, **data):
        retried_growth = in_own_process(publish_in_process, uri, second_load.id)
    assert retried_growth < growth + 20
    assert store.live["monthly_submissions"].count_documents({"_id": {"$regex": "^eu:2026-09"}}) == 40_000
