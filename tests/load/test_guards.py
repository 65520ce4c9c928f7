"""Tests the guards of publish: only a complete, newest and plausible load becomes live."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bi_ops.catalog.jobs import LoadMode
from bi_ops.catalog.slices import Slice
from bi_ops.errors import ShrinkError, StagingError, StaleLoadError
from bi_ops.load.publish import publish
from bi_ops.load.staged_loads import LoadStates
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from tests.load_helpers import (
    RUN,
    SUBMISSIONS,
    live_documents,
    live_raw_documents,
    live_submissions,
    load_slice,
    monthly_slice,
    plan_slice,
    stage_documents,
    stage_slice,
    stage_task,
)
from tests.meg_factory import MegFactory, utc

LATER_RUN = DagRunRef("bi_monthly", "manual__2026-11-20")
READ_AT = utc(2026, 11, 1, 1)


@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_publish_needs_every_stage_task(store: Store, meg: MegReader, meg_factory: MegFactory, skipped: int) -> None:
    """A task that was marked success or skipped by hand has staged nothing, in a good and in an empty month."""
    meg_factory.bulk_forms(25)
    load_slice(store, meg, monthly_slice())
    before = live_raw_documents(store, monthly_slice())
    for slice_ in (monthly_slice(), monthly_slice("2026-09")):
        load = plan_slice(store, meg, slice_, LATER_RUN)
        for task in {0, 1, 2} - {skipped}:
            stage_task(store, meg, load, task)
        with pytest.raises(
            StagingError, match=rf"stage tasks have not completed.*1 of 3 not completed: stage\[{skipped}\]"
        ) as caught:
            publish(store, load, max_shrink=0.5, force=True)
        assert not caught.value.retryable
        assert "monthly_submissions.eu" in caught.value.hint
    assert live_raw_documents(store, monthly_slice()) == before
    assert live_documents(store, monthly_slice("2026-09")) == []


def test_stage_refuses_task_that_is_not_planned(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    meg_factory.bulk_forms(25)
    load = plan_slice(store, meg, monthly_slice())
    with pytest.raises(StagingError, match=r"not in the load's plan.*stage\[3\]") as caught:
        stage_task(store, meg, load, 3)
    assert not caught.value.retryable


def test_missing_load_names_task_group(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    meg_factory.bulk_forms(3)
    load = stage_slice(store, meg, monthly_slice())
    store.loads.delete_many({})
    for step in (
        lambda: LoadStates(store).get(load.id, "monthly_submissions.eu"),
        lambda: stage_task(store, meg, load, 0),
        lambda: publish(store, load, max_shrink=0.5),
    ):
        with pytest.raises(StagingError, match=r"task group monthly_submissions\.eu") as caught:
            step()
        assert not caught.value.retryable


@pytest.mark.parametrize("is_chunk_read_again", [False, True])
def test_older_reading_never_replaces_newer(
    store: Store, meg: MegReader, meg_factory: MegFactory, *, is_chunk_read_again: bool
) -> None:
    """Two runs load a month, MEG changes between them, and the first one is published again.

    If one of its chunks is read again first, the other chunks are as old as before: the earliest reading counts.
    """
    meg_factory.bulk_forms(25)
    first = stage_slice(store, meg, monthly_slice())
    publish(store, first, max_shrink=0.5)
    meg_factory.session(7, utc(2026, 10, 9), observations=500)
    load_slice(store, meg, monthly_slice(), LATER_RUN)
    before = live_raw_documents(store, monthly_slice())
    if is_chunk_read_again:
        meg_factory.session(15, utc(2026, 10, 9), observations=500)
        stage_task(store, meg, first, 1)
    with pytest.raises(StaleLoadError, match="a newer reading is already live") as caught:
        publish(store, first, max_shrink=0.5)
    assert f"from run {LATER_RUN.run_id}, published 20" in caught.value.actual
    assert live_raw_documents(store, monthly_slice()) == before


def test_chunk_of_live_run_can_be_cleared(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """One chunk of the live run is read again and published."""
    meg_factory.bulk_forms(25)
    load = stage_slice(store, meg, monthly_slice())
    publish(store, load, max_shrink=0.5)
    meg_factory.session(15, utc(2026, 10, 9), observations=5)
    stage_task(store, meg, load, 1)
    assert publish(store, load, max_shrink=0.5).written == 1
    assert live_submissions(store, monthly_slice())[15] == 6


def test_force_publishes_older_reading(store: Store) -> None:
    publish(store, stage_documents(store, monthly_slice(), {1: 2}, LATER_RUN, read_at=READ_AT), max_shrink=0.5)
    older = stage_documents(store, monthly_slice(), {1: 1}, RUN, read_at=READ_AT - timedelta(hours=1))
    with pytest.raises(StaleLoadError):
        publish(store, older, max_shrink=0.5)
    publish(store, older, max_shrink=0.5, force=True)
    assert live_submissions(store, monthly_slice()) == {1: 1}


def test_reading_guard_covers_snapshots_too(store: Store) -> None:
    slice_ = Slice(replace(SUBMISSIONS, mode=LoadMode.REPLACE_REGION), "eu", utc(2026, 11, 14))
    publish(store, stage_documents(store, slice_, {1: 2}, LATER_RUN, read_at=READ_AT), max_shrink=0.5)
    older = stage_documents(store, slice_, {1: 1}, RUN, read_at=READ_AT - timedelta(seconds=1))
    with pytest.raises(StaleLoadError, match="a newer reading is already live"):
        publish(store, older, max_shrink=0.5)


def test_unfinished_reading_counts_as_live(store: Store) -> None:
    """A newer load that stopped between two transactions is not replaced by an older one."""
    publish(store, stage_documents(store, monthly_slice(), {1: 1}, read_at=READ_AT), max_shrink=0.5)
    progress = {"run_id": "newer", "load_id": "x", "read_at": READ_AT + timedelta(hours=2), "documents": 1, "of": 2}
    store.ledger.update_one({"_id": monthly_slice().ledger_id}, {"$set": {"publishing": progress}})
    between = stage_documents(store, monthly_slice(), {1: 1}, read_at=READ_AT + timedelta(hours=1))
    with pytest.raises(StaleLoadError, match="from run newer, which is being published"):
        publish(store, between, max_shrink=0.5)


def test_newer_as_of_yields_to_force(store: Store) -> None:
    """A snapshot from a worker whose clock is a day ahead does not block the slice for a day."""
    job = replace(SUBMISSIONS, mode=LoadMode.REPLACE_REGION)
    ahead, present = (Slice(job, "eu", utc(2026, 11, day)) for day in (15, 14))
    publish(store, stage_documents(store, ahead, {1: 1}, read_at=READ_AT), max_shrink=0.5)
    load = stage_documents(store, present, {1: 2}, LATER_RUN, read_at=READ_AT)
    with pytest.raises(StaleLoadError, match="trigger it with force"):
        publish(store, load, max_shrink=0.5)
    publish(store, load, max_shrink=0.5, force=True)
    assert live_submissions(store, present) == {1: 2}


def test_month_of_zeros_is_refused(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """An empty sessions table gives as many documents as before, but with zeros, and is refused."""
    meg_factory.bulk_forms(25)
    load_slice(store, meg, monthly_slice())
    before = live_raw_documents(store, monthly_slice())
    meg_factory.connection.execute("DELETE FROM megforms_observation")
    meg_factory.connection.execute("DELETE FROM megforms_auditsession")
    with pytest.raises(ShrinkError, match=r"at least 13 of the 25 live submissions; actual: 0"):
        load_slice(store, meg, monthly_slice(), LATER_RUN)
    assert live_raw_documents(store, monthly_slice()) == before
    load_slice(store, meg, monthly_slice(), LATER_RUN, force=True)
    assert set(live_submissions(store, monthly_slice()).values()) == {0}


@pytest.mark.parametrize(("submissions", "allowed"), [(50, True), (49, False), (101, True)])
def test_measure_may_fall_by_max_shrink(store: Store, submissions: int, *, allowed: bool) -> None:
    publish(store, stage_documents(store, monthly_slice(), {1: 99, 2: 1}), max_shrink=0.5)
    load = stage_documents(store, monthly_slice(), {1: submissions - 1, 2: 1}, LATER_RUN)
    if allowed:
        publish(store, load, max_shrink=0.5)
    else:
        with pytest.raises(ShrinkError, match="50 of the 100 live submissions"):
            publish(store, load, max_shrink=0.5)


@pytest.mark.usefixtures("meg_factory")
def test_empty_load_records_reading(store: Store, meg: MegReader) -> None:
    """The empty slice of a region without forms is published, and the ledger records when MEG was read."""
    load_slice(store, meg, monthly_slice())
    row = store.ledger.find_one({"_id": monthly_slice().ledger_id})
    assert row
    assert row["documents"] == 0
    assert abs(row["read_at"] - row["published_at"]) < timedelta(minutes=1)
