"""What is staged in runs and packs: whole, in order, by one try at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain, pairwise

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bi_ops import staging
from bi_ops.encoded import id_of
from bi_ops.errors import BiError, DuplicateKeyError
from bi_ops.merge import windows
from bi_ops.source import Meg
from bi_ops.staging import StagedSlice, StagedTask
from bi_ops.store import Store
from tests.loads import RUN, load_of, made_up, month, stage_slice
from tests.megs import MegRows

FORMS = 500


@pytest.fixture
def in_small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few documents are staged as many runs of many packs."""
    monkeypatch.setattr(staging, "RUN_BYTES", 5_000)
    monkeypatch.setattr(staging, "PACK_BYTES", 1_000)


def stage(store: Store, forms: list[int], tasks: int = 3) -> StagedSlice:
    store.prepare_staging(month().job.name)
    staged = StagedSlice(store, month(), RUN)
    for number in range(tasks):
        with staged.task(number) as task:
            for first in range(number, len(forms), 10 * tasks):
                task.add([made_up(month(), form, form) for form in forms[first : first + 10 * tasks : tasks]])
    return staged


@pytest.mark.usefixtures("in_small_runs")
@pytest.mark.parametrize("first", ["", "eu:2026-10:3", "eu:2026-10:301", "eu:2026-10:9999"])
def test_what_was_staged_in_any_order_comes_in_the_order_of_its_ids(store: Store, first: str) -> None:
    forms = sorted(range(FORMS), key=lambda form: form * 7919 % FORMS)
    staged = stage(store, forms)
    packs = staged.packs()
    assert len({pack.run for pack in packs}) > 6
    assert len(packs) > 3 * len({pack.run for pack in packs})
    assert sum(pack.documents for pack in packs) == FORMS
    batches = [*staged.documents(packs, first, 7)]
    assert all(len(batch) == 7 for batch in batches[:-1])
    wanted = sorted((made_up(month(), form, form) for form in forms), key=id_of)
    assert [*chain.from_iterable(batches)] == [each for each in wanted if id_of(each) >= first.encode()]


@pytest.mark.usefixtures("in_small_runs")
def test_two_rows_of_one_key_in_two_runs_are_refused(store: Store) -> None:
    staged = stage(store, [*range(FORMS), 7])
    with pytest.raises(DuplicateKeyError, match="1 doubled, such as _id eu:2026-10:7"):
        list(staged.documents(staged.packs(), "", 100))


@pytest.mark.usefixtures("in_small_runs")
def test_a_task_tried_again_leaves_nothing_of_its_first_try(store: Store) -> None:
    stage(store, [*range(FORMS)], tasks=1)
    staged = stage(store, [*range(20)], tasks=1)
    assert sum(pack.documents for pack in staged.packs()) == load_of(month(), 20).documents


def test_a_task_leaves_its_neighbours_alone(store: Store) -> None:
    staged = StagedSlice(store, month(), RUN)
    for number in (1, 11, 111, 1):
        with staged.task(number) as task:
            task.add([made_up(month(), number, 1)])
    assert [pack.documents for pack in staged.packs()] == [1, 1, 1]


@given(st.lists(st.lists(st.integers(0, 60)), max_size=5), st.integers(1, 4))
def test_windows_give_everything_once_and_what_is_equal_together(streams: list[list[int]], size: int) -> None:
    documents = [[bson.encode({"_id": f"{number:03}"}) for number in sorted(set(stream))] for stream in streams]

    def batches(stream: list[bytes]) -> Iterator[list[bytes]]:
        return (stream[start : start + size] for start in range(0, len(stream), size))

    found = [*windows([batches(stream) for stream in documents])]
    assert [[each for window in found for each in window[number]] for number in range(len(streams))] == documents
    together = [[*chain.from_iterable(window)] for window in found]
    assert all(max(before) < min(after) for before, after in pairwise(together))


def test_a_try_that_was_thought_dead_is_told_from_two_rows_of_one_key(store: Store, meg: Meg, rows: MegRows) -> None:
    """A stage task that goes on after its retry has begun writes among the retry's documents."""
    rows.many_forms(3)
    store.prepare_staging("monthly_submissions")
    staged, document = StagedSlice(store, month(), RUN), made_up(month(), 2, 1)
    late = staged.task(1)
    with pytest.raises(BiError, match="another try of this task is still staging") as caught:
        _stage_while(late, staged.task(1), document)
    assert caught.value.heals_by_itself
    assert stage_slice(store, meg, month()).documents == 3


def _stage_while(
    late: AbstractContextManager[StagedTask], again: AbstractContextManager[StagedTask], document: bytes
) -> None:
    with late as task:
        with again as retried:
            retried.add([document])
        task.add([document])
