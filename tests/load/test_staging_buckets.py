"""Tests the staged data in sorted runs and buckets: complete, in order, and from one attempt only."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import chain

import pytest
from bson import ObjectId

from bi_ops.errors import DuplicateKeyError, SupersededError
from bi_ops.load import staging_buckets
from bi_ops.load.staged_loads import Completion, Load, LoadStates, StagedLoad
from bi_ops.load.staging_buckets import StagingBuckets
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.raw_bson import get_id
from bi_ops.mongo.store import Store
from tests.load_helpers import create_load, make_document, monthly_slice, plan_slice, stage_task, staged_count
from tests.meg_factory import MegFactory

FORMS = 500


@pytest.fixture
def small_sort_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage even a few documents as many sorted runs of many buckets."""
    monkeypatch.setattr(staging_buckets, "SORT_BUFFER_BYTES", 5_000)
    monkeypatch.setattr(staging_buckets, "MAX_BUCKET_BYTES", 1_000)


def stage(store: Store, forms: list[int], tasks: int = 3, load: Load | None = None) -> StagedLoad:
    store.ensure_staging_collections(monthly_slice().job.name)
    load = load or create_load(store, monthly_slice(), [[None]] * tasks)
    states = LoadStates(store)
    for number in range(tasks):
        task_forms = forms[number::tasks]
        attempt = states.begin_task(load, number)
        with StagingBuckets(store, load).writer(number, attempt.id) as task:
            for first in range(0, len(task_forms), 10):
                task.write([make_document(monthly_slice(), form, form) for form in task_forms[first : first + 10]])
        states.complete_task(
            load, number, Completion(attempt.id, 1, len(task_forms), sum(task_forms), datetime.now(timezone.utc))
        )
    return states.staged(load)


@pytest.mark.usefixtures("small_sort_runs")
@pytest.mark.parametrize("first", ["", "eu:2026-10:3", "eu:2026-10:301", "eu:2026-10:9999"])
def test_staged_documents_are_sorted(store: Store, first: str) -> None:
    """Documents staged in any order are read in the order of their ids."""
    forms = sorted(range(FORMS), key=lambda form: form * 7919 % FORMS)
    staged_load = stage(store, forms)
    staged = StagingBuckets(store, staged_load.load)
    buckets = staged.list_buckets(staged_load)
    assert len({bucket.sort_run_id for bucket in buckets}) > 6
    assert len(buckets) > 3 * len({bucket.sort_run_id for bucket in buckets})
    assert sum(bucket.documents for bucket in buckets) == FORMS
    batches = [*staged.iter_documents(buckets, first, 7)]
    assert all(len(batch) == 7 for batch in batches[:-1])
    expected = sorted((make_document(monthly_slice(), form, form) for form in forms), key=get_id)
    assert [*chain.from_iterable(batches)] == [document for document in expected if get_id(document) >= first.encode()]


@pytest.mark.usefixtures("small_sort_runs")
def test_duplicate_key_across_runs_is_refused(store: Store) -> None:
    """One key in two sorted runs is refused."""
    staged_load = stage(store, [*range(FORMS), 7])
    staged = StagingBuckets(store, staged_load.load)
    with pytest.raises(DuplicateKeyError, match="1 duplicates, such as _id eu:2026-10:7"):
        list(staged.iter_documents(staged.list_buckets(staged_load), "", 100))


@pytest.mark.usefixtures("small_sort_runs")
def test_retry_removes_first_attempt(store: Store) -> None:
    """A retried task leaves nothing of its first attempt."""
    load = stage(store, [*range(FORMS)], tasks=1).load
    retried = stage(store, [*range(20)], tasks=1, load=load)
    assert staged_count(store, load) == retried.documents == 20
    assert store.staging_collection(monthly_slice().job.name).count_documents({}) == len(
        StagingBuckets(store, load).list_buckets(retried)
    )


def test_stage_task_keeps_other_tasks(store: Store) -> None:
    """A stage task does not touch other tasks' data."""
    load = create_load(store, monthly_slice(), [[None]] * 112)
    for number in (1, 11, 111, 1):
        with StagingBuckets(store, load).writer(number, ObjectId()) as task:
            task.write([make_document(monthly_slice(), number, 1)])
    assert store.staging_collection(monthly_slice().job.name).distinct("document_count") == [1]
    assert store.staging_collection(monthly_slice().job.name).count_documents({}) == 3


def test_concurrent_attempt_raises_superseded(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A stage task that continues after its retry has started cannot complete, and its documents are not published."""
    meg_factory.bulk_forms(3)
    load = plan_slice(store, meg, monthly_slice())
    states = LoadStates(store)
    late = states.begin_task(load, 0).id
    with StagingBuckets(store, load).writer(0, late) as task:
        assert stage_task(store, meg, load, 0) == 3
        task.write([make_document(monthly_slice(), 99, 1)])
    with pytest.raises(SupersededError, match="another attempt of this stage task has started") as caught:
        states.complete_task(load, 0, Completion(late, 1, 1, 1, datetime.now(timezone.utc)))
    assert caught.value.retryable
    assert staged_count(store, load) == 3
