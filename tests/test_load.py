from __future__ import annotations

import threading
import time
from datetime import timedelta

import psycopg
import pytest
from pymongo.errors import OperationFailure

from bi_ops.errors import DuplicateKeyError, SourceQueryError, SourceRowError, SourceUnavailableError
from bi_ops.load import divide
from bi_ops.loads import LoadRegister
from bi_ops.publish import publish
from bi_ops.source import Meg
from bi_ops.staging import StagedSlice
from bi_ops.store import Run, Store
from bi_ops.templates import render
from dev.stack import DATABASE, Databases
from tests.loads import (
    RUN,
    SUBMISSIONS,
    live,
    load_slice,
    made_up,
    month,
    plan_slice,
    stage_slice,
    stage_task,
    staged_count,
    until,
)
from tests.megs import MegRows, connect_as_reader, utc

QUERY = render("monthly_submissions.sql")


@pytest.mark.parametrize(
    ("forms", "tasks", "chunks"), [(0, 1, 0), (1, 1, 1), (10, 1, 1), (11, 2, 2), (2560, 256, 256), (2600, 256, 260)]
)
def test_forms_are_cut_into_chunks_of_ten_and_at_most_256_tasks(forms: int, tasks: int, chunks: int) -> None:
    cut = divide(range(forms), forms_per_chunk=10, max_tasks=256)
    assert (len(cut), sum(map(len, cut))) == (tasks, chunks)
    assert [form for task in cut for chunk in task if chunk for form in chunk] == list(range(forms))
    assert all(len(chunk or ()) <= 10 for task in cut for chunk in task)
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


@pytest.mark.parametrize("forms", [0, 1, 11, 2600])
def test_any_number_of_forms_is_published_whole(store: Store, meg: Meg, rows: MegRows, forms: int) -> None:
    rows.many_forms(forms)
    done = load_slice(store, meg, month())
    assert done.documents == forms
    assert sorted(document["form_id"] for document in live(store, month())) == list(range(1, forms + 1))
    ledger = store.ledger.find_one({"_id": "monthly_submissions:eu:2026-10"})
    assert ledger
    assert (ledger["documents"], ledger["chunks"]) == (forms, -(-forms // 10))


def test_a_plan_made_again_is_the_same_plan(store: Store, meg: Meg, rows: MegRows) -> None:
    institution = rows.institution()
    for form in (30, 4, 200, 1, 25):
        rows.form(institution, id=form)
    first, second = plan_slice(store, meg, month()), plan_slice(store, meg, month())
    assert first.tasks == second.tasks == ([[1, 4, 25, 30, 200]],)


def test_staging_again_replaces_what_an_earlier_try_left(store: Store, meg: Meg, rows: MegRows) -> None:
    rows.many_forms(11)
    load = plan_slice(store, meg, month())
    with StagedSlice(store, load).task(1, LoadRegister(store).begin_task(load, 1)) as task:
        task.add([made_up(month(), 3, 99), made_up(month(), 5, 99)])
    assert [stage_task(store, meg, load, number) for number in (0, 1)] == [10, 1]
    assert publish(store, load, max_shrink=0.5).documents == 11
    assert {document["submissions"] for document in live(store, month())} == {1}


@pytest.mark.parametrize("other", [Run("bi_monthly", "manual__2026-11-02"), RUN], ids=["run", "installation"])
def test_runs_stage_apart_from_each_other(store: Store, meg: Meg, rows: MegRows, other: Run) -> None:
    """Two runs, and two installations whose runs have the same name."""
    rows.many_forms(11)
    first = stage_slice(store, meg, month())
    second = stage_slice(store, meg, month(), other)
    assert (staged_count(store, first), staged_count(store, second)) == (11, 11)


def test_what_is_staged_expires_by_a_ttl_index(store: Store, servers: Databases) -> None:
    store.prepare_staging(SUBMISSIONS.name)
    with servers.mongo_admin.client() as admin:
        indexes = admin[f"{DATABASE}_staging"][SUBMISSIONS.name].index_information()
    assert indexes["staged_at_ttl"]["key"] == [("staged_at", 1)]
    assert indexes["staged_at_ttl"]["expireAfterSeconds"] == 30 * 24 * 3600


def test_two_rows_of_one_key_are_refused(store: Store, meg: Meg, rows: MegRows) -> None:
    rows.many_forms(3)
    with pytest.raises(DuplicateKeyError, match=r"3 doubled, such as _id eu:2026-10:\d"):
        stage_slice(store, meg, month(), sql=f"WITH once AS ({QUERY}) SELECT * FROM once UNION ALL SELECT * FROM once")
    assert live(store, month()) == []


def test_forms_of_another_chunk_are_refused(store: Store, meg: Meg, rows: MegRows) -> None:
    rows.many_forms(11)
    everything = QUERY.replace("chunk.form_ids::bigint[]", "(SELECT array_agg(id) FROM megforms_auditform)::bigint[]")
    with pytest.raises(SourceRowError, match="not asked for"):
        stage_slice(store, meg, month(), sql=everything)


def test_a_relation_that_meg_lacks_is_named(store: Store, meg: Meg, rows: MegRows) -> None:
    rows.many_forms(1)
    with pytest.raises(SourceQueryError, match=r"megforms_nothing.*include/sql/source/"):
        stage_slice(store, meg, month(), sql=QUERY.replace("megforms_observation", "megforms_nothing"))


def test_a_query_that_takes_too_long_is_given_up(servers: Databases) -> None:
    connect = connect_as_reader(servers, "meg_eu")
    with (
        Meg("eu", connect, reader="test", statement_timeout=timedelta(milliseconds=50)) as meg,
        pytest.raises(SourceUnavailableError, match=r"took too long.*within 0.05 s"),
        meg.query("SELECT pg_sleep(30)", {}) as result,
    ):
        list(result.batches)


def test_a_killed_task_stops_its_query(servers: Databases, meg: Meg) -> None:
    threading.Timer(0.3, meg.cancel).start()
    began = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="was stopped"), meg.query("SELECT pg_sleep(30)", {}) as result:
        list(result.batches)
    assert time.monotonic() - began < 10
    with servers.postgres.connect() as admin:
        until(lambda: _running(admin, "pg_sleep(30)") == 0)


def _running(admin: psycopg.Connection[tuple[int]], query: str) -> int:
    found = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()",
        (f"%{query}%",),
    ).fetchone()
    assert found
    return found[0]


def test_meg_is_read_in_one_read_only_snapshot_under_its_own_name(meg: Meg) -> None:
    names = ("transaction_read_only", "transaction_isolation", "application_name", "statement_timeout", "TimeZone")
    sql = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}"
    with meg.query(sql, {}) as result:
        [[row]] = list(result.batches)
    assert row == ("on", "repeatable read", "meg-bi test", "10min", "UTC")


def test_meg_cannot_be_written(meg: Meg) -> None:
    with (
        pytest.raises(SourceQueryError, match="read-only transaction"),
        meg.query("SELECT lo_create(0)", {}) as result,
    ):
        list(result.batches)


def test_rows_come_in_batches(meg: Meg) -> None:
    with meg.query("SELECT n FROM generate_series(1, 4500) AS n", {}, batch_rows=2000) as result:
        assert [len(batch) for batch in result.batches] == [2000, 2000, 500]


def test_a_meg_that_is_down_is_named_without_its_secrets() -> None:
    def connect() -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host="127.0.0.1", port=1, dbname="meg", user="bi", password="hunter2-secret")

    with (
        Meg("eu", connect, reader="test") as meg,
        pytest.raises(SourceUnavailableError) as caught,
        meg.query("SELECT 1", {}),
    ):
        pass
    assert "meg_eu" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_staging_needs_no_right_beyond_its_two_databases(store: Store, meg: Meg, rows: MegRows) -> None:
    rows.session(rows.form(rows.institution()), utc(2026, 10, 5))
    load_slice(store, meg, month())
    with pytest.raises(OperationFailure, match="not authorized"):
        store.client["elsewhere"]["anything"].insert_one({})
