"""Tests each guarantee of publish, with the failure that it prevents."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import bson
import pytest
from hypothesis import given
from pymongo.errors import OperationFailure

from bi_ops.catalog.jobs import Job, LoadMode
from bi_ops.catalog.slices import Slice
from bi_ops.errors import ShrinkError, StagingError, StaleLoadError, SupersededError
from bi_ops.load import publish as module
from bi_ops.load import staging_buckets
from bi_ops.load.publish import PublishResult, merge_join, publish
from bi_ops.load.staged_loads import Load, StagedLoad
from bi_ops.load.staging_buckets import StagingBuckets
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.load_helpers import (
    RUN,
    SUBMISSIONS,
    live_documents,
    live_raw_documents,
    live_submissions,
    load_slice,
    monthly_slice,
    stage_documents,
    stage_slice,
    stage_task,
)
from tests.meg_factory import MegFactory, utc
from tests.strategies import document_ids

RERUN = DagRunRef("bi_monthly", "manual__2026-11-20")
SNAPSHOT: Job = replace(SUBMISSIONS, mode=LoadMode.REPLACE_REGION)


def snapshot(day: int) -> Slice:
    return Slice(SNAPSHOT, "eu", utc(2026, 11, day))


def publish_numbers(
    store: Store, slice_: Slice, numbers: dict[int, int], run: DagRunRef = RUN, *, timezone: str = "UTC", **options: Any
) -> PublishResult:
    return publish(
        store, stage_documents(store, slice_, numbers, run, timezone=timezone), **{"max_shrink": 0.5, **options}
    )


def set_completed_count(store: Store, load: Load, task: int, documents: int) -> None:
    """Record a stage task of a load as completed with this number of documents."""
    store.loads.update_one({"_id": load.id}, {"$set": {f"completions.{task}.documents": documents}})


def test_republish_is_noop(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A second run of the same data writes nothing."""
    meg_factory.bulk_forms(25)
    load_slice(store, meg, monthly_slice())
    before = live_documents(store, monthly_slice())
    result = load_slice(store, meg, monthly_slice(), RERUN)
    assert result == PublishResult(documents=25, previous_documents=25, written=0)
    assert live_documents(store, monthly_slice()) == before


def test_publish_writes_differences_only(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Only documents that differ are written."""
    meg_factory.bulk_forms(25)
    load_slice(store, meg, monthly_slice())
    before = live_raw_documents(store, monthly_slice())
    meg_factory.session(7, utc(2026, 10, 9))
    meg_factory.connection.execute("UPDATE megforms_auditform SET archived_at = '2026-01-01' WHERE id = 9")
    meg_factory.connection.execute("DELETE FROM megforms_observation WHERE form_id = 9")
    meg_factory.form(1_000_000, id=26)

    assert load_slice(store, meg, monthly_slice(), RERUN).written == 3
    after = live_raw_documents(store, monthly_slice())
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        "eu:2026-10:7",
        "eu:2026-10:9",
        "eu:2026-10:26",
    }
    runs = {document["_id"]: document["run_id"] for document in live_documents(store, monthly_slice())}
    assert {name for name, run_id in runs.items() if run_id == RERUN.run_id} == {"eu:2026-10:7", "eu:2026-10:26"}


def test_restaged_chunk_gives_same_documents(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A chunk that is staged again gives the same documents."""
    meg_factory.bulk_forms(25)
    load = stage_slice(store, meg, monthly_slice())
    publish(store, load, max_shrink=0.5)
    before = live_raw_documents(store, monthly_slice())
    stage_task(store, meg, load, 1)
    assert publish(store, load, max_shrink=0.5).written == 0
    assert live_raw_documents(store, monthly_slice()) == before


def test_publish_leaves_other_slices(store: Store) -> None:
    """Other regions and periods do not change."""
    other_slices = [
        monthly_slice("2026-09"),
        monthly_slice("2026-11"),
        monthly_slice(region="uk"),
        monthly_slice(region="eu2"),
        monthly_slice(region="e"),
    ]
    for slice_ in other_slices:
        publish_numbers(store, slice_, {1: 10, 2: 20})
    publish_numbers(store, monthly_slice(), {1: 1, 3: 3})
    publish_numbers(store, monthly_slice(), {3: 3}, force=True)
    assert all(live_submissions(store, slice_) == {1: 10, 2: 20} for slice_ in other_slices)
    assert live_submissions(store, monthly_slice()) == {3: 3}


def test_snapshot_replaces_its_region(store: Store) -> None:
    """A snapshot replaces its region and no other."""
    uk = Slice(SNAPSHOT, "uk", utc(2026, 11, 7))
    publish_numbers(store, uk, {1: 10})
    publish_numbers(store, snapshot(7), {1: 1, 2: 2, 3: 3})
    publish_numbers(store, snapshot(14), {2: 2, 3: 30})
    assert live_submissions(store, snapshot(14)) == {2: 2, 3: 30}
    assert live_submissions(store, uk) == {1: 10}


@pytest.mark.parametrize("reported", [0, 24, 26])
def test_staging_mismatch_is_refused(store: Store, reported: int) -> None:
    """A count that differs from the staged documents publishes nothing."""
    publish_numbers(store, monthly_slice(), dict.fromkeys(range(25), 1))
    load = stage_documents(store, monthly_slice(), dict.fromkeys(range(25), 2), RERUN)
    set_completed_count(store, load, 0, reported)
    with pytest.raises(StagingError, match=rf"Expected: {reported} documents.*actual: 25.*monthly_submissions\.eu"):
        publish(store, load, max_shrink=0.5)
    assert set(live_submissions(store, monthly_slice()).values()) == {1}


def test_expired_staging_names_task_group(store: Store) -> None:
    """Expired staged data names the task group to clear."""
    load = stage_documents(store, monthly_slice(), {1: 1, 2: 2})
    publish(store, load, max_shrink=0.5)
    store.staging_collection(SUBMISSIONS.name).delete_many({})
    with pytest.raises(StagingError, match=r"30 days.*Clear the task group monthly_submissions\.eu"):
        publish(store, load, max_shrink=0.5)
    assert live_submissions(store, monthly_slice()) == {1: 1, 2: 2}


@pytest.mark.parametrize(
    ("before", "after", "max_shrink", "allowed"),
    [
        (10, 5, 0.5, True),
        (10, 4, 0.5, False),
        (10, 0, 0.5, False),
        (10, 0, 1.0, False),
        (10, 1, 1.0, True),
        (10, 9, 0.0, False),
        (10, 3, 0.7, True),
        (10, 10, 0.0, True),
        (3, 1, 0.5, False),
        (3, 2, 0.5, True),
        (1, 0, 0.5, False),
        (0, 0, 0.5, True),
        (0, 7, 0.5, True),
    ],
)
def test_large_shrink_is_refused(store: Store, before: int, after: int, max_shrink: float, *, allowed: bool) -> None:
    """A slice that would shrink too much is refused."""
    publish_numbers(store, monthly_slice(), dict.fromkeys(range(before), 1))
    ledger = store.ledger.find_one()
    if allowed:
        publish_numbers(store, monthly_slice(), dict.fromkeys(range(after), 2), RERUN, max_shrink=max_shrink)
        assert live_submissions(store, monthly_slice()) == dict.fromkeys(range(after), 2)
    else:
        with pytest.raises(ShrinkError, match=rf"of the {before} live documents; actual: {after}.*force"):
            publish_numbers(store, monthly_slice(), dict.fromkeys(range(after), 2), RERUN, max_shrink=max_shrink)
        assert live_submissions(store, monthly_slice()) == dict.fromkeys(range(before), 1)
        assert store.ledger.find_one() == ledger


def test_force_allows_shrink_to_nothing(store: Store) -> None:
    """With force a slice may shrink to nothing, and the ledger records it."""
    publish_numbers(store, monthly_slice(), {1: 1, 2: 2})
    publish_numbers(store, monthly_slice(), {}, RERUN, force=True)
    row = store.ledger.find_one({"_id": monthly_slice().ledger_id})
    assert row
    assert (row["documents"], row["previous_documents"], row["forced"]) == (0, 2, True)
    assert live_documents(store, monthly_slice()) == []


def test_older_snapshot_is_skipped(store: Store) -> None:
    """An older snapshot never replaces a newer one."""
    publish_numbers(store, snapshot(14), {1: 14})
    with pytest.raises(StaleLoadError, match="2026-11-14"):
        publish_numbers(store, snapshot(7), {1: 14}, RERUN)
    assert live_submissions(store, snapshot(14)) == {1: 14}
    publish_numbers(store, snapshot(14), {1: 15}, RERUN)
    assert live_submissions(store, snapshot(14)) == {1: 15}


def test_month_reloads_after_zone_change(store: Store) -> None:
    """A month can be loaded again after the time zone changed."""
    publish_numbers(store, monthly_slice(timezone="UTC"), {1: 1})
    publish_numbers(store, monthly_slice(timezone="Europe/Berlin"), {1: 2}, RERUN, timezone="Europe/Berlin")
    assert live_submissions(store, monthly_slice()) == {1: 2}
    row = store.ledger.find_one({"_id": monthly_slice().ledger_id})
    assert row
    assert row["timezone"] == "Europe/Berlin"


@pytest.mark.parametrize("bucket_number", [0, 1], ids=["the first bucket", "a later bucket"])
def test_publish_aborts_when_bucket_missing(store: Store, monkeypatch: pytest.MonkeyPatch, bucket_number: int) -> None:
    """A bucket that vanishes during a publish leaves the live slice whole."""
    publish_numbers(store, monthly_slice(), dict.fromkeys(range(25), 1))
    monkeypatch.setattr(staging_buckets, "MAX_BUCKET_DOCUMENTS", 10)
    load = stage_documents(store, monthly_slice(), dict.fromkeys(range(25), 2), RERUN)
    original = module.check_not_stale

    def check_and_lose_bucket(target: Store, staged: StagedLoad) -> None:
        original(target, staged)
        buckets = StagingBuckets(target, staged.load).list_buckets(staged)
        target.staging_collection(SUBMISSIONS.name).delete_one({"_id": buckets[bucket_number].id})

    monkeypatch.setattr(module, "check_not_stale", check_and_lose_bucket)
    with pytest.raises(StagingError, match=r"Expected: \d+ documents in [0-9a-f]{32}\|.*actual: none"):
        publish(store, load, max_shrink=0.5)
    assert live_submissions(store, monthly_slice()) == dict.fromkeys(range(25), 1)


def test_dry_run_creates_no_collection(store: Store) -> None:
    """A dry run creates no collection."""
    publish_numbers(store, monthly_slice(), {1: 5}, dry_run=True)
    assert store.live.list_collection_names() == []


def test_dry_run_checks_only(store: Store) -> None:
    """A dry run checks and publishes nothing."""
    publish_numbers(store, monthly_slice(), {1: 1, 2: 2})
    ledger = store.ledger.find_one()
    assert publish_numbers(store, monthly_slice(), {1: 5, 2: 6}, RERUN, dry_run=True) == PublishResult(2, 2, 0)
    with pytest.raises(ShrinkError):
        publish_numbers(store, monthly_slice(), {}, RERUN, dry_run=True)
    assert live_submissions(store, monthly_slice()) == {1: 1, 2: 2}
    assert store.ledger.find_one() == ledger


def test_ledger_records_publish(store: Store) -> None:
    """The ledger records what was published."""
    read_at = utc(2026, 11, 1, 1)
    load = stage_documents(store, monthly_slice(), {1: 1, 2: 2}, read_at=read_at)
    publish(store, load, max_shrink=0.5)
    row = store.ledger.find_one({"_id": "monthly_submissions:eu:2026-10"})
    assert row
    published_at = row.pop("published_at")
    started_at = load.started_at.replace(microsecond=load.started_at.microsecond // 1000 * 1000)
    assert row == {
        "_id": "monthly_submissions:eu:2026-10",
        "job": "monthly_submissions",
        "region": "eu",
        "period": "2026-10",
        "as_of": utc(2026, 11, 1),
        "run_id": RUN.run_id,
        "dag_id": "bi_monthly",
        "load_id": load.id,
        "read_at": read_at,
        "timezone": "UTC",
        "documents": 2,
        "previous_documents": 0,
        "chunks": 1,
        "transactions": 1,
        "publishing": None,
        "forced": False,
        "started_at": started_at,
        "loaded_at": published_at,
        "schema_version": 1,
    }
    assert timedelta() <= published_at - started_at < timedelta(minutes=1)
    assert {document["loaded_at"] for document in live_documents(store, monthly_slice())} == {published_at}


def test_publish_keeps_live_indexes(store: Store, servers: DatabaseServers) -> None:
    """A publish neither makes nor drops a live index."""
    index: list[tuple[str, int]] = [("region", 1), ("period", 1)]
    with pytest.raises(OperationFailure, match="not authorized"):
        store.live[SUBMISSIONS.name].create_index(index)
    with servers.mongo_admin.client() as admin:
        admin[LIVE_DATABASE][SUBMISSIONS.name].create_index(index, name="made on the Atlas website")
    before = store.live[SUBMISSIONS.name].index_information()
    publish_numbers(store, monthly_slice(), {1: 1, 2: 2})
    publish_numbers(store, monthly_slice(), {1: 1}, force=True)
    assert store.live[SUBMISSIONS.name].index_information() == before
    assert set(store.ledger.index_information()) == {"_id_"}


@pytest.mark.parametrize("documents", [99, 100, 101, 250, 300])
def test_large_slice_is_replaced_in_ranges(store: Store, documents: int) -> None:
    """A slice too large for one transaction is replaced range by range."""
    first, second = dict.fromkeys(range(documents), 1), dict.fromkeys(range(50, documents + 120), 2)
    publish_numbers(store, monthly_slice(), first, max_transaction_documents=100)
    result = publish_numbers(store, monthly_slice(), second, RERUN, max_transaction_documents=100)
    assert live_submissions(store, monthly_slice()) == second
    assert result.written == documents + 120
    lock = store.publish_locks.find_one({"_id": monthly_slice().ledger_id})
    assert lock
    assert lock["transactions"] >= -(-(documents + 70) // 100)


def test_many_batches_of_differences_arrive(store: Store) -> None:
    """More than two batches of differences arrive."""
    publish_numbers(store, monthly_slice(), dict.fromkeys(range(0, 9000, 2), 1))
    expected = {form: form % 7 for form in range(0, 9000, 3)}
    publish_numbers(store, monthly_slice(), expected, RERUN)
    assert live_submissions(store, monthly_slice()) == expected


def test_superseded_publish_stops(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish that another one superseded stops."""
    first_load = stage_documents(store, monthly_slice(), {1: 1, 2: 1})
    second_load = stage_documents(store, monthly_slice(), {1: 2, 2: 2}, RERUN)
    original = module.check_not_stale

    def check_and_supersede(target: Store, staged: StagedLoad) -> None:
        original(target, staged)
        if staged.load is first_load:
            publish(store, second_load, max_shrink=0.5)

    monkeypatch.setattr(module, "check_not_stale", check_and_supersede)
    with pytest.raises(SupersededError, match="another run"):
        publish(store, first_load, max_shrink=0.5)
    assert live_submissions(store, monthly_slice()) == {1: 2, 2: 2}


def test_concurrent_publishes_never_mix(store: Store) -> None:
    """Without the lock on the slice, a slice could mix ranges of two runs."""
    outcomes = []
    for turn in range(8):
        loads = [
            stage_documents(
                store,
                monthly_slice(),
                dict.fromkeys(range(400), 2 * turn + number),
                DagRunRef("bi_monthly", f"run {number}"),
            )
            for number in (0, 1)
        ]
        barrier = threading.Barrier(len(loads))

        def run(load: Load, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                publish(store, load, max_shrink=0.5, max_transaction_documents=50)
                outcomes.append("published")
            except SupersededError:
                outcomes.append("superseded")

        threads = [threading.Thread(target=run, args=(load,)) for load in loads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        values = set(live_submissions(store, monthly_slice()).values())
        row = store.ledger.find_one({"_id": monthly_slice().ledger_id})
        assert row
        assert values == {2 * turn + int(row["run_id"][-1])}
    assert len(outcomes) == 16
    assert outcomes.count("published") >= 8


@pytest.mark.fast
@given(document_ids(), document_ids())
def test_merge_join_pairs_equal_ids(left: set[str], right: set[str]) -> None:
    """Each document comes once, in MongoDB's order of the `_id`s, with the other side's of the same `_id`."""

    def side(ids: set[str], number: int) -> dict[bytes, bytes]:
        return {id_.encode(): bson.encode({"_id": id_, "side": number}) for id_ in ids}

    lefts, rights = side(left, 0), side(right, 1)
    ids = sorted(lefts.keys() | rights.keys())
    pairs = merge_join((lefts[id_] for id_ in sorted(lefts)), (rights[id_] for id_ in sorted(rights)))
    assert [*pairs] == [(lefts.get(id_, b""), rights.get(id_, b"")) for id_ in ids]


def test_republish_large_documents_is_noop(store: Store) -> None:
    """Documents of many kilobytes are split into batches by size, and found to be the same again."""
    forms = dict.fromkeys(range(1_000), 1)
    for run, written in ((RUN, 1_000), (RERUN, 0)):
        load = stage_documents(store, monthly_slice(), forms, run, form_name="x" * 20_000)
        assert publish(store, load, max_shrink=0.5).written == written
