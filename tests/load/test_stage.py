"""Tests that stage tasks read their own chunks only, and refuse invalid rows."""

from __future__ import annotations

import pytest

from bi_ops.catalog.sql_templates import render_sql
from bi_ops.errors import DuplicateKeyError, InvalidSourceRowError, SourceQueryError
from bi_ops.load.publish import publish
from bi_ops.load.staged_loads import LoadStates
from bi_ops.load.staging_buckets import StagingBuckets
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from tests.load_helpers import (
    RUN,
    live_documents,
    load_slice,
    make_document,
    monthly_slice,
    plan_slice,
    stage_slice,
    stage_task,
    staged_count,
)
from tests.meg_factory import MegFactory

QUERY = render_sql("monthly_submissions.sql")


@pytest.mark.parametrize("forms", [0, 1, 11, 2600])
def test_any_number_of_forms_is_published(store: Store, meg: MegReader, meg_factory: MegFactory, forms: int) -> None:
    """Any number of forms is published whole."""
    meg_factory.bulk_forms(forms)
    result = load_slice(store, meg, monthly_slice())
    assert result.documents == forms
    assert sorted(document["form_id"] for document in live_documents(store, monthly_slice())) == list(
        range(1, forms + 1)
    )
    ledger = store.ledger.find_one({"_id": "monthly_submissions:eu:2026-10"})
    assert ledger
    assert (ledger["documents"], ledger["chunks"]) == (forms, -(-forms // 10))


def test_stage_replaces_earlier_attempt(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A new attempt replaces the staged data of an earlier one."""
    meg_factory.bulk_forms(11)
    load = plan_slice(store, meg, monthly_slice())
    with StagingBuckets(store, load).writer(1, LoadStates(store).begin_task(load, 1).id) as task:
        task.write([make_document(monthly_slice(), 3, 99), make_document(monthly_slice(), 5, 99)])
    assert [stage_task(store, meg, load, number) for number in (0, 1)] == [10, 1]
    assert publish(store, load, max_shrink=0.5).documents == 11
    assert {document["submissions"] for document in live_documents(store, monthly_slice())} == {1}


@pytest.mark.parametrize(
    "second_run", [DagRunRef("bi_monthly", "manual__2026-11-02"), RUN], ids=["run", "installation"]
)
def test_loads_are_staged_apart(store: Store, meg: MegReader, meg_factory: MegFactory, second_run: DagRunRef) -> None:
    """Loads of two runs, and of two installations whose runs have the same id, are staged separately."""
    meg_factory.bulk_forms(11)
    first = stage_slice(store, meg, monthly_slice())
    second = stage_slice(store, meg, monthly_slice(), second_run)
    assert (staged_count(store, first), staged_count(store, second)) == (11, 11)


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
