"""Tests that forms are divided into chunks and tasks, the same way every time."""

from __future__ import annotations

import pytest

from bi_ops.load.plan import describe_forms, split_into_tasks
from bi_ops.load.staged_loads import Chunk
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from tests.load_helpers import monthly_slice, plan_slice, planned_tasks
from tests.meg_factory import MegFactory


@pytest.mark.parametrize(
    ("forms", "tasks", "chunks"), [(0, 1, 0), (1, 1, 1), (10, 1, 1), (11, 2, 2), (2560, 256, 256), (2600, 256, 260)]
)
def test_forms_are_split_into_tasks(forms: int, tasks: int, chunks: int) -> None:
    """Forms are split into chunks of ten and at most 256 tasks."""
    plan = split_into_tasks(range(forms), forms_per_chunk=10, max_tasks=256)
    assert (len(plan), sum(map(len, plan))) == (tasks, chunks)
    assert [form for task in plan for chunk in task if chunk for form in chunk] == list(range(forms))
    assert all(len(chunk or ()) <= 10 for task in plan for chunk in task)
    assert max(map(len, plan)) - min(map(len, plan)) <= 1


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([[7]], "form 7"),
        ([[11, 12], [20]], "forms 11\N{EN DASH}20 (3)"),
        ([[*range(11, 21)]], "forms 11\N{EN DASH}20"),
        ([], "no forms"),
        ([None], "everything"),
    ],
)
def test_forms_are_described(chunks: list[Chunk], words: str) -> None:
    """The first and the last form are named, and their number unless it is ten."""
    assert describe_forms(chunks) == words


def test_plan_is_deterministic(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A second plan is the same plan."""
    institution = meg_factory.institution()
    for form in (30, 4, 200, 1, 25):
        meg_factory.form(institution, id=form)
    first, second = plan_slice(store, meg, monthly_slice()), plan_slice(store, meg, monthly_slice())
    assert planned_tasks(store, first) == planned_tasks(store, second) == [[[1, 4, 25, 30, 200]]]
