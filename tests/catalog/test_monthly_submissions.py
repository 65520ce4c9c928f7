"""Tests the documents of monthly_submissions: exclusions, boundaries, listed forms, growth and unusual values."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from bi_ops.catalog.slices import Slice
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from tests.load_helpers import live_documents, live_documents_by_id, load_slice, monthly_slice
from tests.meg_factory import MegFactory, raw_tables, utc
from tests.oracle import Oracle


def check(
    store: Store, meg: MegReader, meg_factory: MegFactory, slice_: Slice, timezone: str = "UTC"
) -> dict[str, dict[str, Any]]:
    assert slice_.period
    load_slice(store, meg, slice_, timezone=timezone)
    documents = live_documents_by_id(store, slice_)
    assert documents == Oracle(raw_tables(meg_factory.connection)).monthly_submissions(slice_.period)
    return documents


def test_fields_keep_declared_order(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Fields keep their declared order, with the load metadata last."""
    meg_factory.session(meg_factory.form(meg_factory.institution()), utc(2026, 10, 5))
    load_slice(store, meg, monthly_slice())
    assert list(live_documents(store, monthly_slice())[0]) == [
        *("_id", "region", "period", "period_start", "institution_id", "institution_name", "form_id", "form_name"),
        *("form_type", "submissions", "submitters", "wards", "submissions_by_platform", "first_submitted_at"),
        *("last_submitted_at", "previous_submissions", "change_pct", "schema_version", "loaded_at", "run_id"),
    ]


def test_exclusions_are_transitive(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Exclusions apply to everything that belongs to an excluded row."""
    client, demo = meg_factory.institution(), meg_factory.institution(is_demo=True)
    form, at = meg_factory.form(client), utc(2026, 10, 5)
    meg_factory.session(form, at, auditor_id=meg_factory.auditor(client), ward_id=meg_factory.ward(client))
    public = meg_factory.session(form, at, auditor_id=None, platform="public", observations=0)
    meg_factory.observation(
        public, meg_factory.form(client, archived_at=utc(2026, 1, 1))
    )  # counts for its session's form
    for excluded in (
        meg_factory.auditor(client, user=meg_factory.user(is_staff=True)),
        meg_factory.auditor(client, level="global"),
        meg_factory.auditor(demo),
    ):
        meg_factory.session(form, at, auditor_id=excluded)
    meg_factory.session(form, at, ward_id=meg_factory.ward(demo))
    meg_factory.session(form, at, deleted_at=utc(2026, 12, 1))
    meg_factory.session(form, None)
    meg_factory.session(meg_factory.form(demo), at)
    without_observations = meg_factory.session(form, at, observations=0)
    meg_factory.observation(without_observations, form, deleted_at=at)
    meg_factory.observation(without_observations, meg_factory.form(demo))
    inactive = meg_factory.auditor(client, user=meg_factory.user(is_active=False))
    meg_factory.session(form, at, auditor_id=inactive)

    [document] = check(store, meg, meg_factory, monthly_slice()).values()
    assert (document["submissions"], document["submitters"], document["wards"]) == (3, 2, 1)


def test_month_is_half_open(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A month includes its start and excludes its end, in the settings' time zone."""
    form = meg_factory.form(meg_factory.institution())
    slice_ = monthly_slice(timezone="Europe/Dublin")  # starts in summer time, ends in winter time
    assert slice_.period
    assert (slice_.period.start, slice_.period.end) == (utc(2026, 9, 30, 23), utc(2026, 11, 1))
    for instant in (slice_.period.start, slice_.period.end):
        meg_factory.session(form, instant)
        meg_factory.session(form, instant - timedelta(microseconds=1), observations=2)

    [document] = check(store, meg, meg_factory, slice_, "Europe/Dublin").values()
    assert (document["submissions"], document["previous_submissions"]) == (3, 2)
    assert document["change_pct"] == 50.0


def test_forms_listed_while_live_or_used(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A form has a document in each month in which it exists or is used."""
    institution = meg_factory.institution(is_active=False)
    listed = {
        "unused": meg_factory.form(institution),
        "made in the last moment": meg_factory.form(
            institution, created_at=utc(2026, 11, 1) - timedelta(microseconds=1)
        ),
        "archived at its start": meg_factory.form(institution, archived_at=utc(2026, 10, 1)),
        "used after it was archived": meg_factory.form(institution, archived_at=utc(2026, 1, 1)),
        "used before it was made": meg_factory.form(institution, created_at=utc(2026, 12, 1)),
    }
    meg_factory.form(institution, created_at=utc(2026, 11, 1))
    meg_factory.form(institution, archived_at=utc(2026, 10, 1) - timedelta(microseconds=1))
    only_a_session = meg_factory.form(institution, archived_at=utc(2026, 1, 1))
    meg_factory.session(only_a_session, utc(2026, 10, 5), observations=0)
    for name in ("used after it was archived", "used before it was made"):
        meg_factory.session(listed[name], utc(2026, 10, 5))

    documents = check(store, meg, meg_factory, monthly_slice())
    assert {document["form_id"] for document in documents.values()} == set(listed.values())


def test_growth_is_rounded_or_null(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Growth has two decimals and is null after a month without submissions."""
    institution = meg_factory.institution()
    counts = {meg_factory.form(institution): pair for pair in [(1, 3), (0, 4), (5, 0), (0, 0), (7, 6), (2, 16), (1, 8)]}
    for form, (current, previous) in counts.items():
        meg_factory.session(form, utc(2026, 10, 5), observations=current)
        meg_factory.session(form, utc(2026, 9, 5), observations=previous)

    documents = check(store, meg, meg_factory, monthly_slice())
    growth = {document["form_id"]: document["change_pct"] for document in documents.values()}
    assert [growth[form] for form in counts] == [-66.67, -100.0, None, None, 16.67, -87.5, -87.5]


def test_unusual_ids_and_names_are_kept(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Unusual ids and names arrive unchanged."""
    institution = meg_factory.institution(id=2**63 - 1, name='Hôpital "St. Ciarán" $where.x 🏥')
    form = meg_factory.form(institution, id=2**63 - 2, name="$set.a..b\u0001 O'Brien", form_type="")
    meg_factory.session(form, utc(2026, 10, 31, 23, 59), platform="android")

    [document] = check(store, meg, meg_factory, monthly_slice()).values()
    assert (document["form_id"], document["institution_id"]) == (2**63 - 2, 2**63 - 1)
    assert document["form_name"] == "$set.a..b\u0001 O'Brien"


def test_leap_february_is_whole(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A leap February has 29 days."""
    form = meg_factory.form(meg_factory.institution())
    meg_factory.session(form, utc(2024, 2, 29, 23))
    meg_factory.session(form, utc(2024, 3, 1))
    [document] = check(store, meg, meg_factory, monthly_slice("2024-02")).values()
    assert document["submissions"] == 1
