from __future__ import annotations

import threading
import time
from datetime import timedelta

import psycopg
import pytest
from pymongo.errors import OperationFailure

from bi_ops.catalog.sql import render_sql
from bi_ops.errors import DuplicateKeyError, InvalidSourceRowError, SourceQueryError, SourceUnavailableError
from bi_ops.load.plan import split_into_tasks
from bi_ops.load.publish import publish
from bi_ops.load.register import LoadRegister
from bi_ops.load.staging import StagedSlice
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.load_helpers import (
    RUN,
    SUBMISSIONS,
    live_documents,
    load_slice,
    make_document,
    monthly_slice,
    plan_slice,
    stage_slice,
    stage_task,
    staged_count,
    wait_until,
)
from tests.meg_factory import MegFactory, connect_as_reader, utc

QUERY = render_sql("monthly_submissions.sql")


@pytest.mark.parametrize(
    ("forms", "tasks", "chunks"), [(0, 1, 0), (1, 1, 1), (10, 1, 1), (11, 2, 2), (2560, 256, 256), (2600, 256, 260)]
)
def test_forms_are_split_into_tasks(forms: int, tasks: int, chunks: int) -> None:
    """Forms are split into chunks of ten and at most 256 tasks."""
    cut = split_into_tasks(range(forms), forms_per_chunk=10, max_tasks=256)
    assert (len(cut), sum(map(len, cut))) == (tasks, chunks)
    assert [form for task in cut for chunk in task if chunk for form in chunk] == list(range(forms))
    assert all(len(chunk or ()) <= 10 for task in cut for chunk in task)
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


@pytest.mark.parametrize("forms", [0, 1, 11, 2600])
def test_any_number_of_forms_is_published(store: Store, meg: MegReader, meg_factory: MegFactory, forms: int) -> None:
    """Any number of forms is published whole."""
    meg_factory.bulk_forms(forms)
    done = load_slice(store, meg, monthly_slice())
    assert done.documents == forms
    assert sorted(document["form_id"] for document in live_documents(store, monthly_slice())) == list(
        range(1, forms + 1)
    )
    ledger = store.ledger.find_one({"_id": "monthly_submissions:eu:2026-10"})
    assert ledger
    assert (ledger["documents"], ledger["chunks"]) == (forms, -(-forms // 10))


def test_plan_is_deterministic(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A second plan is the same plan."""
    institution = meg_factory.institution()
    for form in (30, 4, 200, 1, 25):
        meg_factory.form(institution, id=form)
    first, second = plan_slice(store, meg, monthly_slice()), plan_slice(store, meg, monthly_slice())
    assert first.tasks == second.tasks == ([[1, 4, 25, 30, 200]],)


def test_stage_replaces_earlier_attempt(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A new attempt replaces what an earlier one staged."""
    meg_factory.bulk_forms(11)
    load = plan_slice(store, meg, monthly_slice())
    with StagedSlice(store, load).writer(1, LoadRegister(store).begin_task(load, 1)) as task:
        task.write([make_document(monthly_slice(), 3, 99), make_document(monthly_slice(), 5, 99)])
    assert [stage_task(store, meg, load, number) for number in (0, 1)] == [10, 1]
    assert publish(store, load, max_shrink=0.5).documents == 11
    assert {document["submissions"] for document in live_documents(store, monthly_slice())} == {1}


@pytest.mark.parametrize("other", [DagRunRef("bi_monthly", "manual__2026-11-02"), RUN], ids=["run", "installation"])
def test_loads_are_staged_apart(store: Store, meg: MegReader, meg_factory: MegFactory, other: DagRunRef) -> None:
    """Two runs, and two installations whose runs have the same name."""
    meg_factory.bulk_forms(11)
    first = stage_slice(store, meg, monthly_slice())
    second = stage_slice(store, meg, monthly_slice(), other)
    assert (staged_count(store, first), staged_count(store, second)) == (11, 11)


def test_staged_data_expires(store: Store, servers: DatabaseServers) -> None:
    """A TTL index removes staged data after 30 days."""
    store.ensure_staging_collections(SUBMISSIONS.name)
    with servers.mongo_admin.client() as admin:
        indexes = admin[f"{LIVE_DATABASE}_staging"][SUBMISSIONS.name].index_information()
    assert indexes["staged_at_ttl"]["key"] == [("staged_at", 1)]
    assert indexes["staged_at_ttl"]["expireAfterSeconds"] == 30 * 24 * 3600


def test_duplicate_key_is_refused(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Two rows with one key are refused."""
    meg_factory.bulk_forms(3)
    with pytest.raises(DuplicateKeyError, match=r"3 duplicates, such as _id eu:2026-10:\d"):
        stage_slice(
            store, meg, monthly_slice(), sql=f"WITH once AS ({QUERY}) SELECT * FROM once UNION ALL SELECT * FROM once"
        )
    assert live_documents(store, monthly_slice()) == []


def test_form_of_other_chunk_is_refused(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A form that is not of the chunk is refused."""
    meg_factory.bulk_forms(11)
    everything = QUERY.replace("chunk.form_ids::bigint[]", "(SELECT array_agg(id) FROM megforms_auditform)::bigint[]")
    with pytest.raises(InvalidSourceRowError, match="outside the task's chunks"):
        stage_slice(store, meg, monthly_slice(), sql=everything)


def test_missing_relation_is_named(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A relation that MEG lacks is named."""
    meg_factory.bulk_forms(1)
    with pytest.raises(SourceQueryError, match=r"megforms_nothing.*include/sql/source/"):
        stage_slice(store, meg, monthly_slice(), sql=QUERY.replace("megforms_observation", "megforms_nothing"))


def test_slow_query_times_out(servers: DatabaseServers) -> None:
    """A query over the time limit is given up."""
    connect = connect_as_reader(servers, "meg_eu")
    with (
        MegReader("eu", connect, application_name="test", statement_timeout=timedelta(milliseconds=50)) as meg,
        pytest.raises(SourceUnavailableError, match=r"took too long.*within 0.05 s"),
        meg.query("SELECT pg_sleep(30)", {}) as result,
    ):
        list(result.batches)


def test_killed_task_cancels_query(servers: DatabaseServers, meg: MegReader) -> None:
    """A killed task cancels its query on MEG."""
    threading.Timer(0.3, meg.cancel).start()
    began = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="was stopped"), meg.query("SELECT pg_sleep(30)", {}) as result:
        list(result.batches)
    assert time.monotonic() - began < 10
    with servers.postgres.connect() as admin:
        wait_until(lambda: _running(admin, "pg_sleep(30)") == 0)


def _running(admin: psycopg.Connection[tuple[int]], query: str) -> int:
    found = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()",
        (f"%{query}%",),
    ).fetchone()
    assert found
    return found[0]


def test_meg_query_is_read_only_snapshot(meg: MegReader) -> None:
    """MEG is read in one read-only snapshot under an application name."""
    names = ("transaction_read_only", "transaction_isolation", "application_name", "statement_timeout", "TimeZone")
    sql = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}"
    with meg.query(sql, {}) as result:
        [[row]] = list(result.batches)
    assert row == ("on", "repeatable read", "meg-bi test", "10min", "UTC")


def test_meg_write_is_refused(meg: MegReader) -> None:
    """MEG cannot be written."""
    with (
        pytest.raises(SourceQueryError, match="read-only transaction"),
        meg.query("SELECT lo_create(0)", {}) as result,
    ):
        list(result.batches)


def test_rows_arrive_in_batches(meg: MegReader) -> None:
    """Rows arrive in batches."""
    with meg.query("SELECT n FROM generate_series(1, 4500) AS n", {}, batch_rows=2000) as result:
        assert [len(batch) for batch in result.batches] == [2000, 2000, 500]


def test_meg_down_hides_secrets() -> None:
    """The error of a MEG that is down holds no secret."""

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host="127.0.0.1", port=1, dbname="meg", user="bi", password="hunter2-secret")

    with (
        MegReader("eu", connect, application_name="test") as meg,
        pytest.raises(SourceUnavailableError) as caught,
        meg.query("SELECT 1", {}),
    ):
        pass
    assert "meg_eu" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_load_needs_two_databases_only(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A load needs no privilege beyond its two databases."""
    meg_factory.session(meg_factory.form(meg_factory.institution()), utc(2026, 10, 5))
    load_slice(store, meg, monthly_slice())
    with pytest.raises(OperationFailure, match="not authorized"):
        store.client["elsewhere"]["anything"].insert_one({})
