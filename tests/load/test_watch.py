"""Tests which slices are reported as late and as published since, and that each is reported once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import pendulum
import pytest

from bi_ops.catalog.due_slices import due_slices
from bi_ops.catalog.slices import Slice
from bi_ops.errors import ShrinkError
from bi_ops.load.ledger import is_published
from bi_ops.load.permanent_failures import record_failure
from bi_ops.load.publish import publish
from bi_ops.load.watch import LatenessChanges, describe_slices, find_changes, mark_reported
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings
from tests.load_helpers import RUN, make_slice, monthly_slice, stage_documents
from tests.meg_factory import utc

NOW = pendulum.datetime(2026, 11, 26, 12)
SETTINGS = Settings(start_date="2026-07-01", regions="eu,uk")
RegionStart = Callable[[str], datetime | None]


def publish_slices(store: Store, slices: Iterable[Slice]) -> None:
    for slice_ in slices:
        publish(store, stage_documents(store, slice_, {}), max_shrink=1)


def publish_all(store: Store, now: datetime = NOW, settings: Settings = SETTINGS) -> None:
    publish_slices(store, (slice_ for region in settings.regions for slice_ in due_slices(settings, region, now)))


def watch(
    store: Store,
    now: datetime = NOW,
    settings: Settings = SETTINGS,
    region_start: RegionStart = lambda _: None,
) -> LatenessChanges:
    """One run of `bi_watch`, which sends its notification."""
    changes = find_changes(store, settings, now, region_start)
    mark_reported(store, changes, now)
    return changes


def names(slices: Iterable[Slice]) -> set[str]:
    return {str(slice_) for slice_ in slices}


def reported_ids(store: Store) -> set[str]:
    return set(store.watch.distinct("_id"))


def test_removed_row_is_reported_once(store: Store) -> None:
    """A slice that vanished from the ledger is reported once, and once more when it is published."""
    publish_all(store)
    assert watch(store) == LatenessChanges([], {}, [], [])
    store.ledger.delete_one({"_id": "monthly_submissions:uk:2026-09"})
    assert names(watch(store).late) == {"monthly_submissions uk 2026-09"}
    for hours in (0, 1, 40):
        changes = watch(store, NOW.add(hours=hours))
        assert (changes.late, changes.published) == ([], [])
    publish_slices(store, [monthly_slice("2026-09", region="uk")])
    changes = watch(store)
    assert (changes.late, names(changes.published)) == ([], {"monthly_submissions uk 2026-09"})
    assert watch(store) == LatenessChanges([], {}, [], [])
    assert reported_ids(store) == set()


def test_nothing_ever_ran(store: Store) -> None:
    """With an empty ledger everything that is due is late: each slice of both regions, once."""
    changes = watch(store)
    assert len(changes.late) == 2 * (2 * 4 + 1 + 1 + 3)
    assert reported_ids(store) == {slice_.ledger_id for slice_ in changes.late}
    assert watch(store).late == []


@pytest.mark.parametrize(("deadline_hours", "hours"), [(24, 24), (1, 1), (72.5, 72.5)])
def test_slice_is_late_after_deadline(store: Store, deadline_hours: float, hours: float) -> None:
    """A month is late from `BI_DEADLINE_HOURS` after its end on, and not before."""
    settings = Settings(start_date="2026-07-01", regions="eu", deadline_hours=deadline_hours)
    end = utc(2026, 11, 1)
    publish_slices(store, [s for s in due_slices(settings, "eu", end) if s.period and s.period.name != "2026-10"])

    def late(at: datetime) -> set[str]:
        return {name for name in names(watch(store, at, settings).late) if "2026-" in name}

    assert late(end + timedelta(hours=hours, seconds=-1)) == set()
    assert late(end + timedelta(hours=hours)) == {"monthly_submissions eu 2026-10", "monthly_sessions eu 2026-10"}


def test_late_snapshot_is_reported_once(store: Store) -> None:
    """A snapshot that stays late for weeks is reported once; any later one ends that."""
    publish_all(store)
    late = [names(watch(store, NOW.add(weeks=week)).late) for week in range(5)]
    weekly = {
        f"{job} {region}" for job in ("institutions", "forms", "security_risk_clients") for region in SETTINGS.regions
    }
    assert late[0] == set()
    assert late[1] | late[2] | late[3] | late[4] >= weekly
    assert sum(len(weekly & week) for week in late) == len(weekly)
    publish_slices(store, [make_slice("forms", NOW.add(weeks=4))])
    assert names(watch(store, NOW.add(weeks=4)).published) == {"forms eu"}


def test_removed_region_is_forgotten(store: Store) -> None:
    """What was reported of a region that is no longer set is forgotten, without a notification."""
    watch(store)
    publish_all(store)
    changes = watch(store, settings=SETTINGS.model_copy(update={"regions": ("eu",)}))
    assert {slice_.region for slice_ in changes.published} == {"eu"}
    assert reported_ids(store) == set()


def test_region_start_bounds_lateness(store: Store) -> None:
    """Nothing before a region's start is late; what was reported while the start was unknown is forgotten."""
    watch(store)
    start = utc(2026, 10, 5)
    changes = watch(store, region_start=lambda region: start if region == "uk" else None)
    assert (changes.late, changes.published) == ([], [])
    months = {row["period"] for row in store.watch.find({"region": "uk", "job": "monthly_sessions"})}
    assert months == {"2026-10"}
    assert store.watch.count_documents({"region": "eu", "job": "monthly_sessions"}) == 4


def test_unsent_changes_are_found_again(store: Store) -> None:
    """Until the notification is marked as sent, the same changes are found again."""
    first = find_changes(store, SETTINGS, NOW, lambda _: None)
    assert find_changes(store, SETTINGS, NOW, lambda _: None) == first
    mark_reported(store, first, NOW)
    publish_all(store)
    recovered = find_changes(store, SETTINGS, NOW, lambda _: None)
    assert len(recovered.published) == len(first.late)
    assert find_changes(store, SETTINGS, NOW, lambda _: None) == recovered


@pytest.mark.parametrize(("began", "late"), [(timedelta(minutes=5), False), (timedelta(days=2), True)])
def test_running_publish_is_not_late(store: Store, began: timedelta, *, late: bool) -> None:
    """A slice that is being replaced is not late, unless the publish has stopped long ago."""
    publish_all(store)
    progress = {"documents": 1, "of": 2, "read_at": NOW - began}
    store.ledger.update_one({"_id": "monthly_sessions:eu:2026-08"}, {"$set": {"publishing": progress}})
    assert names(watch(store).late) == ({"monthly_sessions eu 2026-08"} if late else set())


def test_state_describes_reported_slice(store: Store) -> None:
    """The collection `bi_watch` says what was reported, and when."""
    publish_all(store)
    store.ledger.delete_one({"_id": "monthly_sessions:eu:2026-08"})
    watch(store)
    [row] = store.watch.find()
    assert row == {
        "_id": "monthly_sessions:eu:2026-08",
        "job": "monthly_sessions",
        "region": "eu",
        "period": "2026-08",
        "as_of": utc(2026, 9, 1),
        "reported_at": NOW,
    }


def test_changed_time_zone_is_not_late(store: Store) -> None:
    """What was published in another time zone is not late in the present one."""
    publish_all(store)
    for zone in ("America/New_York", "Pacific/Auckland"):
        assert watch(store, settings=SETTINGS.model_copy(update={"timezone": zone})).late == []


@pytest.mark.fast
def test_snapshot_without_time_zone_by_instant() -> None:
    """A ledger row of an earlier version has no time zone, so its instant counts."""
    slice_ = make_slice("forms", utc(2026, 11, 21))
    row = {"published_at": NOW, "as_of": utc(2026, 11, 21)}
    assert is_published(slice_, row)
    assert not is_published(slice_, {**row, "as_of": utc(2026, 11, 20, 23)})


def test_failures_are_described(store: Store) -> None:
    """Each job and region is one paragraph, its months are ranges, and a failure has its message and hint."""
    error = ShrinkError("it would shrink", context="monthly", hint="Check MEG's data.")
    publish_slices(store, [monthly_slice("2026-09")])
    for month in ("2026-07", "2026-08"):
        record_failure(store, monthly_slice(month, region="uk"), error, RUN)
    changes = watch(store)
    assert list(changes.failures) == [monthly_slice(month, region="uk") for month in ("2026-08", "2026-07")]
    lines = describe_slices(changes.late, changes.failures)
    assert lines[:3] == [
        "monthly_submissions eu: 2026-07 to 2026-08, 2026-10",
        "monthly_submissions uk: 2026-07 to 2026-08\n    it would shrink\n    Hint: Check MEG's data.",
        "monthly_submissions uk: 2026-09 to 2026-10",
    ]
    assert "top_users eu: snapshot of 2026-11-01" in lines
    assert "quarterly_form_churn eu: 2026-Q3" in lines
    assert "forms uk: snapshot of 2026-11-21" in lines
    assert len(lines) == 2 * 7 + 1
