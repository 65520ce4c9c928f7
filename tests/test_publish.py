"""Each promise that publish makes, with the failure that it prevents."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from bi_ops import publish as module
from bi_ops import staging
from bi_ops.errors import NewerSliceLiveError, ShrinkError, StagingError, SupersededError
from bi_ops.jobs import Job, Mode
from bi_ops.loads import Load, StagedLoad
from bi_ops.publish import Published, publish
from bi_ops.slices import Slice
from bi_ops.source import Meg
from bi_ops.staging import StagedSlice
from bi_ops.store import Run, Store
from dev.stack import DATABASE, Databases
from tests.loads import (
    RUN,
    SUBMISSIONS,
    live,
    live_bytes,
    load_slice,
    month,
    numbers_of,
    stage_documents,
    stage_slice,
    stage_task,
)
from tests.megs import MegRows, utc

RERUN = Run("bi_monthly", "manual__2026-11-20")
SNAPSHOT: Job = replace(SUBMISSIONS, mode=Mode.WIPE)


def snapshot(day: int) -> Slice:
    return Slice(SNAPSHOT, "eu", utc(2026, 11, day))


def publish_numbers(
    store: Store, of: Slice, numbers: dict[int, int], run: Run = RUN, *, timezone: str = "UTC", **how: Any
) -> Published:
    return publish(store, stage_documents(store, of, numbers, run, timezone=timezone), **{"max_shrink": 0.5, **how})


def read_again(store: Store, load: Load, task: int, documents: int) -> None:
    """Let a stage task of a load complete with another count of documents than it has staged."""
    store.loads.update_one({"_id": load.id}, {"$set": {f"completions.{task}.documents": documents}})


def test_a_run_done_again_changes_nothing(store: Store, meg: Meg, rows: MegRows) -> None:
    rows.many_forms(25)
    load_slice(store, meg, month())
    before = live(store, month())
    done = load_slice(store, meg, month(), RERUN)
    assert done == Published(documents=25, previous_documents=25, written=0)
    assert live(store, month()) == before


def test_only_what_differs_is_written(store: Store, meg: Meg, rows: MegRows) -> None:
    rows.many_forms(25)
    load_slice(store, meg, month())
    before = live_bytes(store, month())
    rows.session(7, utc(2026, 10, 9))
    rows.connection.execute("UPDATE megforms_auditform SET archived_at = '2026-01-01' WHERE id = 9")
    rows.connection.execute("DELETE FROM megforms_observation WHERE form_id = 9")
    rows.form(1_000_000, id=26)

    assert load_slice(store, meg, month(), RERUN).written == 3
    after = live_bytes(store, month())
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        "eu:2026-10:7",
        "eu:2026-10:9",
        "eu:2026-10:26",
    }
    runs = {document["_id"]: document["run_id"] for document in live(store, month())}
    assert {name for name, run_id in runs.items() if run_id == RERUN.run_id} == {"eu:2026-10:7", "eu:2026-10:26"}


def test_one_chunk_staged_again_gives_the_same_documents(store: Store, meg: Meg, rows: MegRows) -> None:
    rows.many_forms(25)
    load = stage_slice(store, meg, month())
    publish(store, load, max_shrink=0.5)
    before = live_bytes(store, month())
    stage_task(store, meg, load, 1)
    assert publish(store, load, max_shrink=0.5).written == 0
    assert live_bytes(store, month()) == before


def test_other_regions_and_periods_are_left_alone(store: Store) -> None:
    others = [month("2026-09"), month("2026-11"), month(region="uk"), month(region="eu2"), month(region="e")]
    for other in others:
        publish_numbers(store, other, {1: 10, 2: 20})
    publish_numbers(store, month(), {1: 1, 3: 3})
    publish_numbers(store, month(), {3: 3}, force=True)
    assert all(numbers_of(store, other) == {1: 10, 2: 20} for other in others)
    assert numbers_of(store, month()) == {3: 3}


def test_a_snapshot_replaces_the_whole_region_and_no_other(store: Store) -> None:
    uk = Slice(SNAPSHOT, "uk", utc(2026, 11, 7))
    publish_numbers(store, uk, {1: 10})
    publish_numbers(store, snapshot(7), {1: 1, 2: 2, 3: 3})
    publish_numbers(store, snapshot(14), {2: 2, 3: 30})
    assert numbers_of(store, snapshot(14)) == {2: 2, 3: 30}
    assert numbers_of(store, uk) == {1: 10}


@pytest.mark.parametrize("reported", [0, 24, 26])
def test_a_count_that_is_not_what_was_staged_publishes_nothing(store: Store, reported: int) -> None:
    publish_numbers(store, month(), dict.fromkeys(range(25), 1))
    wrong = stage_documents(store, month(), dict.fromkeys(range(25), 2), RERUN)
    read_again(store, wrong, 0, reported)
    with pytest.raises(StagingError, match=rf"expected {reported} documents.*found 25.*monthly_submissions\.eu"):
        publish(store, wrong, max_shrink=0.5)
    assert set(numbers_of(store, month()).values()) == {1}


def test_what_has_expired_from_staging_names_the_group_to_clear(store: Store) -> None:
    load = stage_documents(store, month(), {1: 1, 2: 2})
    publish(store, load, max_shrink=0.5)
    store.staging(SUBMISSIONS.name).delete_many({})
    with pytest.raises(StagingError, match=r"30 days.*Clear the task group monthly_submissions\.eu"):
        publish(store, load, max_shrink=0.5)
    assert numbers_of(store, month()) == {1: 1, 2: 2}


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
def test_a_slice_that_would_shrink_too_much_is_not_published(
    store: Store, before: int, after: int, max_shrink: float, *, allowed: bool
) -> None:
    publish_numbers(store, month(), dict.fromkeys(range(before), 1))
    ledger = store.ledger.find_one()
    if allowed:
        publish_numbers(store, month(), dict.fromkeys(range(after), 2), RERUN, max_shrink=max_shrink)
        assert numbers_of(store, month()) == dict.fromkeys(range(after), 2)
    else:
        with pytest.raises(ShrinkError, match=rf"of the {before} documents that are live; found {after}.*force"):
            publish_numbers(store, month(), dict.fromkeys(range(after), 2), RERUN, max_shrink=max_shrink)
        assert numbers_of(store, month()) == dict.fromkeys(range(before), 1)
        assert store.ledger.find_one() == ledger


def test_force_lets_a_slice_shrink_to_nothing_and_says_so(store: Store) -> None:
    publish_numbers(store, month(), {1: 1, 2: 2})
    publish_numbers(store, month(), {}, RERUN, force=True)
    row = store.ledger.find_one({"_id": month().ledger_id})
    assert row
    assert (row["documents"], row["previous_documents"], row["forced"]) == (0, 2, True)
    assert live(store, month()) == []


def test_an_older_snapshot_never_replaces_a_newer_one(store: Store) -> None:
    publish_numbers(store, snapshot(14), {1: 14})
    with pytest.raises(NewerSliceLiveError, match="2026-11-14"):
        publish_numbers(store, snapshot(7), {1: 14}, RERUN)
    assert numbers_of(store, snapshot(14)) == {1: 14}
    publish_numbers(store, snapshot(14), {1: 15}, RERUN)
    assert numbers_of(store, snapshot(14)) == {1: 15}


def test_a_month_is_loaded_anew_after_the_time_zone_moved(store: Store) -> None:
    publish_numbers(store, month(timezone="UTC"), {1: 1})
    publish_numbers(store, month(timezone="Europe/Berlin"), {1: 2}, RERUN, timezone="Europe/Berlin")
    assert numbers_of(store, month()) == {1: 2}
    row = store.ledger.find_one({"_id": month().ledger_id})
    assert row
    assert row["timezone"] == "Europe/Berlin"


@pytest.mark.parametrize("lost", [0, 1], ids=["the first pack", "a later pack"])
def test_what_vanishes_from_staging_during_a_publish_vanishes_from_nowhere_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    publish_numbers(store, month(), dict.fromkeys(range(25), 1))
    monkeypatch.setattr(staging, "MOST_PACKED", 10)
    load = stage_documents(store, month(), dict.fromkeys(range(25), 2), RERUN)
    original = module.check_is_newest

    def then_lose(where: Store, staged: StagedLoad) -> None:
        original(where, staged)
        packs = StagedSlice(where, staged.load).packs(staged)
        where.staging(SUBMISSIONS.name).delete_one({"_id": packs[lost].name})

    monkeypatch.setattr(module, "check_is_newest", then_lose)
    with pytest.raises(StagingError, match=r"expected \d+ documents in [0-9a-f]{32}\|.*found none"):
        publish(store, load, max_shrink=0.5)
    assert numbers_of(store, month()) == dict.fromkeys(range(25), 1)


def test_a_dry_run_makes_no_collection(store: Store) -> None:
    publish_numbers(store, month(), {1: 5}, dry_run=True)
    assert store.live.list_collection_names() == []


def test_a_dry_run_checks_and_publishes_nothing(store: Store) -> None:
    publish_numbers(store, month(), {1: 1, 2: 2})
    ledger = store.ledger.find_one()
    assert publish_numbers(store, month(), {1: 5, 2: 6}, RERUN, dry_run=True) == Published(2, 2, 0)
    with pytest.raises(ShrinkError):
        publish_numbers(store, month(), {}, RERUN, dry_run=True)
    assert numbers_of(store, month()) == {1: 1, 2: 2}
    assert store.ledger.find_one() == ledger


def test_the_ledger_tells_what_was_published(store: Store) -> None:
    read_at = utc(2026, 11, 1, 1)
    load = stage_documents(store, month(), {1: 1, 2: 2}, read_at=read_at)
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
    assert {document["loaded_at"] for document in live(store, month())} == {published_at}


def test_live_indexes_are_neither_made_nor_lost(store: Store, servers: Databases) -> None:
    index: list[tuple[str, int]] = [("region", 1), ("period", 1)]
    with pytest.raises(OperationFailure, match="not authorized"):
        store.live[SUBMISSIONS.name].create_index(index)
    with servers.mongo_admin.client() as admin:
        admin[DATABASE][SUBMISSIONS.name].create_index(index, name="made on the Atlas website")
    before = store.live[SUBMISSIONS.name].index_information()
    publish_numbers(store, month(), {1: 1, 2: 2})
    publish_numbers(store, month(), {1: 1}, force=True)
    assert store.live[SUBMISSIONS.name].index_information() == before
    assert set(store.ledger.index_information()) == {"_id_"}


@pytest.mark.parametrize("documents", [99, 100, 101, 250, 300])
def test_a_slice_too_large_for_one_transaction_is_replaced_range_by_range(store: Store, documents: int) -> None:
    first, second = dict.fromkeys(range(documents), 1), dict.fromkeys(range(50, documents + 120), 2)
    publish_numbers(store, month(), first, transaction_documents=100)
    done = publish_numbers(store, month(), second, RERUN, transaction_documents=100)
    assert numbers_of(store, month()) == second
    assert done.written == documents + 120
    used = store.publishers.find_one({"_id": month().ledger_id})
    assert used
    assert used["transactions"] >= -(-(documents + 70) // 100)


def test_more_than_two_batches_of_differences_arrive(store: Store) -> None:
    publish_numbers(store, month(), dict.fromkeys(range(0, 9000, 2), 1))
    wanted = {form: form % 7 for form in range(0, 9000, 3)}
    publish_numbers(store, month(), wanted, RERUN)
    assert numbers_of(store, month()) == wanted


def test_a_publish_that_was_overtaken_stops(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = stage_documents(store, month(), {1: 1, 2: 1})
    theirs = stage_documents(store, month(), {1: 2, 2: 2}, RERUN)
    original = module.check_is_newest

    def overtaken(where: Store, staged: StagedLoad) -> None:
        original(where, staged)
        if staged.load is mine:
            publish(store, theirs, max_shrink=0.5)

    monkeypatch.setattr(module, "check_is_newest", overtaken)
    with pytest.raises(SupersededError, match="another run"):
        publish(store, mine, max_shrink=0.5)
    assert numbers_of(store, month()) == {1: 2, 2: 2}


def test_two_runs_at_the_same_moment_never_mix(store: Store) -> None:
    """Without the hold that a publish takes on its slice, ranges of one run would end up between the other's."""
    outcomes = []
    for turn in range(8):
        loads = [
            stage_documents(
                store, month(), dict.fromkeys(range(400), 2 * turn + which), Run("bi_monthly", f"run {which}")
            )
            for which in (0, 1)
        ]
        at_once = threading.Barrier(len(loads))

        def run(load: Load, at_once: threading.Barrier = at_once) -> None:
            at_once.wait()
            try:
                publish(store, load, max_shrink=0.5, transaction_documents=50)
                outcomes.append("published")
            except SupersededError:
                outcomes.append("superseded")

        threads = [threading.Thread(target=run, args=(load,)) for load in loads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        values = set(numbers_of(store, month()).values())
        row = store.ledger.find_one({"_id": month().ledger_id})
        assert row
        assert values == {2 * turn + int(row["run_id"][-1])}
    assert len(outcomes) == 16
    assert outcomes.count("published") >= 8
