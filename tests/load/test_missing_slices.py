"""Tests which slices `bi_backfill` finds, how it groups them into runs, and which failures it does not repeat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import product

import pendulum
import pytest

from bi_ops.catalog.due_slices import due_slices
from bi_ops.catalog.jobs import JOBS
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.catalog.slices import Slice
from bi_ops.errors import ShrinkError, SourceUnavailableError
from bi_ops.load.backfill_selection import Selection
from bi_ops.load.ledger import unpublished
from bi_ops.load.missing_slices import (
    FoundSlices,
    LoadRequest,
    find_slices,
    group_into_requests,
    limit_periods,
)
from bi_ops.load.permanent_failures import find_failures, record_failure
from bi_ops.load.publish import publish
from bi_ops.load.region_starts import read_region_start, store_region_start, stored_region_starts
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings
from tests.load_helpers import RUN, monthly_slice, stage_documents
from tests.meg_factory import MegFactory, utc

NOW = pendulum.datetime(2026, 11, 26, 12)
SETTINGS = Settings(start_date="2026-07-01", regions="eu,uk")
ALL = Selection([job.name for job in JOBS], ("eu", "uk"))
MONTHLY = replace(ALL, jobs=("monthly_submissions", "monthly_sessions"))


def month(name: str) -> Period:
    return Period.parse(name, Cadence.MONTHLY, "UTC")


def publish_slices(store: Store, slices: Iterable[Slice]) -> None:
    for slice_ in slices:
        publish(store, stage_documents(store, slice_, {}), max_shrink=1)


def find(store: Store, selection: Selection = ALL) -> FoundSlices:
    return find_slices(store, SETTINGS, selection, NOW, lambda _: None)


def test_all_is_missing_at_first(store: Store) -> None:
    """With an empty ledger every due slice of both regions is missing, the newest first."""
    found = find(store).slices
    expected = [slice_ for region in ("eu", "uk") for slice_ in due_slices(SETTINGS, region, NOW)]
    assert set(found) == set(expected)
    assert len(found) == len(expected) == 2 * (2 * 4 + 1 + 1 + 3)
    assert [slice_.as_of for slice_ in found] == sorted((slice_.as_of for slice_ in expected), reverse=True)


def test_published_is_not_missing(store: Store) -> None:
    """What is published is not missing; with `only_missing` off it is found again."""
    published = [slice_ for slice_ in find(store).slices if slice_.region == "eu" or slice_.job.name == "forms"]
    publish_slices(store, published)
    found = find(store).slices
    assert {slice_.region for slice_ in found} == {"uk"}
    assert "forms" not in {slice_.job.name for slice_ in found}
    assert len(find(store, replace(ALL, only_missing=False)).slices) == 2 * 13
    publish_slices(store, found)
    assert find(store).slices == []


def test_older_snapshot_counts_as_missing(store: Store) -> None:
    """A snapshot is missing until one of its last schedule, or a later one, is published."""
    [due] = [slice_ for slice_ in find(store).slices if slice_.ledger_id == "forms:eu"]
    for as_of, missing in ((due.as_of.subtract(weeks=1), True), (due.as_of, False), (NOW, False)):
        publish_slices(store, [replace(due, as_of=as_of)])
        assert bool(unpublished(store, [due])) is missing


def test_stopped_publish_counts_as_missing(store: Store) -> None:
    """A publish that stopped between two transactions leaves its slice missing."""
    publish_slices(store, [monthly_slice()])
    store.ledger.update_one({}, {"$set": {"publishing": {"documents": 1, "of": 2}}})
    assert unpublished(store, [monthly_slice()]) == [monthly_slice()]


@pytest.mark.parametrize(
    ("first", "last", "months"),
    [
        ("2026-09", None, {"2026-09", "2026-10"}),
        (None, "2026-08", {"2026-07", "2026-08"}),
        ("2026-08", "2026-08", {"2026-08"}),
        ("2026-05", "2026-06", {"2026-05", "2026-06"}),
    ],
)
def test_selected_months_bound_slices(store: Store, first: str | None, last: str | None, months: set[str]) -> None:
    """`from` and `to` bound the months, also before BI_START_DATE, and leave out what lies outside."""
    selection = replace(ALL, first=first and month(first), last=last and month(last))
    found = find(store, selection).slices
    assert {slice_.period.name for slice_ in found if slice_.period and "Q" not in slice_.period.name} == months
    snapshots = {slice_.job.name for slice_ in found if slice_.job.is_snapshot}
    assert bool(snapshots) is (last is None)


def test_region_start_bounds_its_slices(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A region's first institution marks its start, which is stored; a demo institution is none."""
    assert read_region_start(meg) is None
    meg_factory.institution(is_demo=True)
    meg_factory.institution(created_at=utc(2026, 9, 20))
    meg_factory.institution(created_at=utc(2026, 10, 20))
    start = read_region_start(meg)
    assert start == utc(2026, 9, 20)
    store_region_start(store, "eu", start)
    assert stored_region_starts(store) == {"eu": start}
    found = find_slices(store, SETTINGS, MONTHLY, NOW, stored_region_starts(store).get)
    periods = {
        region: {s.period.name for s in found.slices if s.region == region and s.period} for region in ("eu", "uk")
    }
    assert periods == {"eu": {"2026-09", "2026-10"}, "uk": {"2026-07", "2026-08", "2026-09", "2026-10"}}


def test_region_that_is_down_blocks_only_itself(store: Store) -> None:
    """Of a region whose MEG is down nothing is loaded, and its error is kept; a region without gaps is not asked."""

    def read(region: str) -> datetime | None:
        if region == "uk":
            raise SourceUnavailableError("cannot reach MEG", context="uk", hint="Retry.")
        raise AssertionError("a region without gaps")

    publish_slices(store, [slice_ for slice_ in find(store).slices if slice_.region == "eu"])
    found = find_slices(store, SETTINGS, ALL, NOW, read)
    assert found.slices == []
    assert {slice_.region for slice_ in found.blocked} == {"uk"}
    assert len(found.blocked) == 13


def test_failure_is_kept_until_published(store: Store) -> None:
    """A failure blocks its slice until that is published."""
    slice_, other = monthly_slice(), monthly_slice("2026-09")
    error = ShrinkError("the slice would shrink", context="monthly", expected="more", actual="less", hint="Use force.")
    record_failure(store, slice_, error, RUN)
    failures = find_failures(store, [slice_, other])
    assert list(failures) == [slice_]
    assert str(failures[slice_]) == str(error)
    publish_slices(store, [slice_])
    assert find_failures(store, [slice_]) == {}


def test_runs_load_exactly_what_is_missing(store: Store) -> None:
    """The runs together load each missing slice once and nothing else, the newest period first."""
    publish_slices(store, [s for s in find(store).slices if (s.region, s.job.name) == ("eu", "monthly_sessions")])
    publish_slices(store, [monthly_slice("2026-08", region="uk")])
    slices = find(store).slices
    requests = group_into_requests(slices)
    loaded = [
        (request.cadence.dag_id, request.period, job, region)
        for request in requests
        for job, region in product(request.jobs, request.regions)
    ]
    assert len(loaded) == len(set(loaded)) == len(slices)
    months = [request.period for request in requests if request.cadence is Cadence.MONTHLY]
    assert months == sorted(months, reverse=True)
    assert LoadRequest(Cadence.MONTHLY, "2026-08", ("monthly_submissions",), ("eu",)) in requests
    assert LoadRequest(Cadence.WEEKLY, "", ("institutions", "forms", "security_risk_clients"), ("eu", "uk")) in requests
    assert LoadRequest(Cadence.QUARTERLY, "2026-Q3", ("quarterly_form_churn",), ("eu", "uk")) in requests
    # top_users, a snapshot of the month's end, is loaded with its month.
    assert ("bi_monthly", "2026-10", "top_users", "uk") in loaded


def test_period_limit_keeps_newest() -> None:
    """A limit keeps the newest periods whole."""
    slices = [slice_ for slice_ in due_slices(SETTINGS, "eu", NOW) if slice_.job.cadence is Cadence.MONTHLY]
    kept = limit_periods(slices, 2)
    assert {slice_.period.name for slice_ in kept if slice_.period} == {"2026-10", "2026-09"}
    assert len(kept) == 5
    assert limit_periods(slices, 100) == slices


def test_time_zone_keeps_names(store: Store) -> None:
    """In a time zone with summer time each month is found under its own name."""
    settings = Settings(start_date="2026-01-01", regions="eu", timezone="Australia/Sydney")
    found = find_slices(store, settings, replace(MONTHLY, regions=("eu",)), NOW, lambda _: None).slices
    requests = group_into_requests(found)
    assert [request.period for request in requests] == [f"2026-{number:02}" for number in range(10, 0, -1)]
    again = [Slice.from_json(slice_.to_json(), settings.timezone) for slice_ in found]
    assert group_into_requests(again) == requests
