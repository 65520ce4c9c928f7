"""What is staged in runs and packs: whole, in order, by one try at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import chain, pairwise

import bson
import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from bi_ops import staging
from bi_ops.encoded import id_of
from bi_ops.errors import DuplicateKeyError, SupersededError
from bi_ops.loads import Completion, Load, LoadRegister, StagedLoad
from bi_ops.merge import windows
from bi_ops.source import Meg
from bi_ops.staging import StagedSlice
from bi_ops.store import Store
from tests.loads import made_up, month, plan_slice, register, stage_task, staged_count
from tests.megs import MegRows

FORMS = 500


@pytest.fixture
def in_small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few documents are staged as many runs of many packs."""
    monkeypatch.setattr(staging, "RUN_BYTES", 5_000)
    monkeypatch.setattr(staging, "PACK_BYTES", 1_000)


def stage(store: Store, forms: list[int], tasks: int = 3, load: Load | None = None) -> StagedLoad:
    store.prepare_staging(month().job.name)
    load = load or register(store, month(), [[None]] * tasks)
    loads = LoadRegister(store)
    for number in range(tasks):
        mine = forms[number::tasks]
        attempt = loads.begin_task(load, number)
        with StagedSlice(store, load).task(number, attempt) as task:
            for first in range(0, len(mine), 10):
                task.add([made_up(month(), form, form) for form in mine[first : first + 10]])
        loads.complete_task(load, number, Completion(attempt, 1, len(mine), sum(mine), datetime.now(timezone.utc)))
    return loads.staged(load)


@pytest.mark.usefixtures("in_small_runs")
@pytest.mark.parametrize("first", ["", "eu:2026-10:3", "eu:2026-10:301", "eu:2026-10:9999"])
def test_what_was_staged_in_any_order_comes_in_the_order_of_its_ids(store: Store, first: str) -> None:
    forms = sorted(range(FORMS), key=lambda form: form * 7919 % FORMS)
    whole = stage(store, forms)
    staged = StagedSlice(store, whole.load)
    packs = staged.packs(whole)
    assert len({pack.run for pack in packs}) > 6
    assert len(packs) > 3 * len({pack.run for pack in packs})
    assert sum(pack.documents for pack in packs) == FORMS
    batches = [*staged.documents(packs, first, 7)]
    assert all(len(batch) == 7 for batch in batches[:-1])
    wanted = sorted((made_up(month(), form, form) for form in forms), key=id_of)
    assert [*chain.from_iterable(batches)] == [each for each in wanted if id_of(each) >= first.encode()]


@pytest.mark.usefixtures("in_small_runs")
def test_two_rows_of_one_key_in_two_runs_are_refused(store: Store) -> None:
    whole = stage(store, [*range(FORMS), 7])
    staged = StagedSlice(store, whole.load)
    with pytest.raises(DuplicateKeyError, match="1 doubled, such as _id eu:2026-10:7"):
        list(staged.documents(staged.packs(whole), "", 100))


@pytest.mark.usefixtures("in_small_runs")
def test_a_task_tried_again_leaves_nothing_of_its_first_try(store: Store) -> None:
    load = stage(store, [*range(FORMS)], tasks=1).load
    again = stage(store, [*range(20)], tasks=1, load=load)
    assert staged_count(store, load) == again.documents == 20
    assert store.staging(month().job.name).count_documents({}) == len(StagedSlice(store, load).packs(again))


def test_a_task_leaves_its_neighbours_alone(store: Store) -> None:
    load = register(store, month(), [[None]] * 112)
    for number in (1, 11, 111, 1):
        with StagedSlice(store, load).task(number, ObjectId()) as task:
            task.add([made_up(month(), number, 1)])
    assert store.staging(month().job.name).distinct("count") == [1]
    assert store.staging(month().job.name).count_documents({}) == 3


@given(st.lists(st.lists(st.integers(0, 60)), max_size=5), st.integers(1, 4))
def test_windows_give_everything_once_and_what_is_equal_together(streams: list[list[int]], size: int) -> None:
    documents = [[bson.encode({"_id": f"{number:03}"}) for number in sorted(set(stream))] for stream in streams]

    def batches(stream: list[bytes]) -> Iterator[list[bytes]]:
        return (stream[start : start + size] for start in range(0, len(stream), size))

    found = [*windows([batches(stream) for stream in documents])]
    assert [[each for window in found for each in window[number]] for number in range(len(streams))] == documents
    together = [[*chain.from_iterable(window)] for window in found]
    assert all(max(before) < min(after) for before, after in pairwise(together))


def test_concurrent_attempt_raises_superseded(store: Store, meg: Meg, rows: MegRows) -> None:
    """A stage task that goes on after its retry has begun completes nothing, and its documents are not published."""
    rows.many_forms(3)
    load = plan_slice(store, meg, month())
    loads = LoadRegister(store)
    late = loads.begin_task(load, 0)
    with StagedSlice(store, load).task(0, late) as task:
        assert stage_task(store, meg, load, 0) == 3
        task.add([made_up(month(), 99, 1)])
    with pytest.raises(SupersededError, match="another attempt of this stage task has begun") as caught:
        loads.complete_task(load, 0, Completion(late, 1, 1, 1, datetime.now(timezone.utc)))
    assert caught.value.heals_by_itself
    assert staged_count(store, load) == 3
