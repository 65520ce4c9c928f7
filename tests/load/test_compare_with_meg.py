"""Tests the comparison of published months with what MEG says today."""

from __future__ import annotations

import pytest

from bi_ops.catalog.jobs import get_job
from bi_ops.catalog.slices import Slice
from bi_ops.load.compare_with_meg import Difference, audit
from bi_ops.load.staged_loads import LoadSettings
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from tests.load_helpers import live_raw_documents, load_slice, monthly_slice
from tests.meg_factory import MegFactory, utc

RUN = DagRunRef("bi_backfill", "manual__1")
MONTHS = ("2026-08", "2026-09", "2026-10")
JOBS = ("monthly_submissions", "monthly_sessions")
SLICES = [monthly_slice(name, job=get_job(job)) for job in JOBS for name in MONTHS]


@pytest.fixture
def published(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Three published months of 25 forms; October has a submission of each form, August one of form 1."""
    meg_factory.bulk_forms(25)
    meg_factory.session(1, utc(2026, 8, 10), observations=4)
    for slice_ in SLICES:
        load_slice(store, meg, slice_)


def audited(store: Store, meg: MegReader, slice_: Slice) -> Difference:
    return audit(meg, store, slice_, RUN, settings=LoadSettings("UTC", 10))


@pytest.mark.usefixtures("published")
def test_unchanged_months_are_equal(store: Store, meg: MegReader) -> None:
    """Months that MEG has not changed have no difference."""
    for slice_ in SLICES:
        difference = audited(store, meg, slice_)
        assert difference.is_equal
        assert (difference.documents, difference.published) == (25, difference.in_meg)


@pytest.mark.usefixtures("published")
def test_changed_months_are_found_exactly(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Only the months whose rows changed differ, by documents and by submissions, and nothing is published."""
    before = [live_raw_documents(store, slice_) for slice_ in SLICES]
    ledger = list(store.ledger.find(sort=[("_id", 1)]))
    change = meg_factory.connection.execute
    change("UPDATE megforms_auditsession SET deleted_at = now() WHERE form_id = 1 AND submitted_at < '2026-09-01'")
    change("UPDATE megforms_observation SET deleted_at = now() WHERE session_id IN (2, 3)")
    meg_factory.form(1_000_000, id=26, created_at=utc(2026, 10, 3))
    change("UPDATE megforms_auditform SET archived_at = '2026-09-30' WHERE id = 25")
    change("DELETE FROM megforms_observation WHERE form_id = 25")
    change("DELETE FROM megforms_auditsession WHERE form_id = 25")
    results = {(slice_.job.name, slice_.period.name): audited(store, meg, slice_) for slice_ in SLICES if slice_.period}
    assert {key for key, difference in results.items() if not difference.is_equal} == {
        ("monthly_submissions", "2026-08"),
        # change_pct and previous_submissions are the month before's.
        ("monthly_submissions", "2026-09"),
        ("monthly_submissions", "2026-10"),
        ("monthly_sessions", "2026-08"),
        ("monthly_sessions", "2026-10"),
    }
    august = results["monthly_submissions", "2026-08"]
    assert (august.changed, august.added, august.removed, august.published, august.in_meg) == (1, 0, 0, 4, 0)
    october = results["monthly_submissions", "2026-10"]
    assert (october.changed, october.added, october.removed) == (2, 1, 1)
    assert (october.documents, october.published, october.in_meg) == (25, 25, 22)
    assert [live_raw_documents(store, slice_) for slice_ in SLICES] == before
    assert list(store.ledger.find(sort=[("_id", 1)])) == ledger
