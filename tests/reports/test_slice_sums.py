"""Tests which documents the reports read again after a publish."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from bi_ops.catalog.jobs import get_job
from bi_ops.mongo.store import Store
from bi_ops.reports.filters import Filters
from bi_ops.reports.loaded_periods import loaded_period_steps
from bi_ops.reports.query_execution import execute
from bi_ops.reports.slice_sums import SliceSums, Sums
from tests.reports.figure_documents import AS_OF, ledger_row
from tests.reports.live_rows import insert_live

JOB, CHURN = get_job("monthly_submissions"), get_job("quarterly_form_churn")
SUM = {"submissions": {"$sum": "$submissions"}}
BY_CLIENT, BY_STATUS = Sums(JOB, SUM, "institution_id"), Sums(CHURN, SUM, "status")
EVERYTHING = Filters()
MONTHS = ("2026-09", "2026-10")
LATER = {"$set": {"published_at": AS_OF + timedelta(hours=1)}}


@pytest.fixture
def database(store: Store) -> Database[dict[str, Any]]:
    """The live database, empty."""
    return store.live


def insert(database: Database[dict[str, Any]], region: str, month: str, submissions: int, form_type: str) -> None:
    insert_live(
        database[JOB.name],
        {"region": region, "period": month, "institution_id": 1, "form_type": form_type, "submissions": submissions},
    )


def read(
    database: Database[dict[str, Any]], slice_sums: SliceSums, filters: Filters = EVERYTHING, sums: Sums = BY_CLIENT
) -> dict[tuple[str, str], int]:
    loaded = execute(database, loaded_period_steps(sums.job, filters))
    rows = execute(database, slice_sums.steps(sums, filters, loaded, loaded.coverage.axis))
    return {tuple(slice_): sum(row["submissions"] for row in rows[slice_]) for slice_ in sorted(rows)}


def test_only_published_slices_are_read_again(database: Database[dict[str, Any]]) -> None:
    """A slice's sums stay as they were read until the ledger says that it was published, or is being published."""
    database["bi_loads"].insert_many(
        [ledger_row(JOB.name, region, month) for region in ("eu", "uk") for month in MONTHS]
    )
    for region in ("eu", "uk"):
        for month in MONTHS:
            insert(database, region, month, 1, "audit")
    slice_sums = SliceSums()
    assert read(database, slice_sums) == {(region, month): 1 for region in ("eu", "uk") for month in MONTHS}
    database[JOB.name].update_many({}, {"$set": {"submissions": 5}})
    assert set(read(database, slice_sums).values()) == {1}
    database["bi_loads"].update_one({"_id": f"{JOB.name}:uk:2026-10"}, LATER)
    assert read(database, slice_sums) == {
        ("eu", "2026-09"): 1,
        ("eu", "2026-10"): 1,
        ("uk", "2026-09"): 1,
        ("uk", "2026-10"): 5,
    }
    publishing = {"$set": {"publishing": {"documents": 3, "of": 4}}}
    database["bi_loads"].update_one({"_id": f"{JOB.name}:eu:2026-09"}, publishing)
    assert read(database, slice_sums)["eu", "2026-09"] == 5
    slice_sums.clear()
    assert set(read(database, slice_sums).values()) == {5}


def test_filters_have_sums_of_their_own(database: Database[dict[str, Any]]) -> None:
    """The sums of one form type are not those of all; a region's are the same, whichever regions are selected."""
    database["bi_loads"].insert_many([ledger_row(JOB.name, region, "2026-10") for region in ("eu", "uk")])
    for region in ("eu", "uk"):
        insert(database, region, "2026-10", 1, "audit")
        insert(database, region, "2026-10", 2, "survey")
    slice_sums = SliceSums()
    assert read(database, slice_sums) == {("eu", "2026-10"): 3, ("uk", "2026-10"): 3}
    survey = Filters(form_types=("survey",))
    assert read(database, slice_sums, survey) == {("eu", "2026-10"): 2, ("uk", "2026-10"): 2}
    database[JOB.name].delete_many({})
    assert read(database, slice_sums, Filters(regions=("uk",))) == {("uk", "2026-10"): 3}
    assert read(database, slice_sums, survey) == {("eu", "2026-10"): 2, ("uk", "2026-10"): 2}


def test_region_slice_holds_all_its_quarters(database: Database[dict[str, Any]]) -> None:
    """A publish of a collection that replaces a region's documents renews all its periods, and no other region's."""
    database["bi_loads"].insert_many([ledger_row(CHURN.name, region, "2026-Q3") for region in ("eu", "uk")])
    for region in ("eu", "uk"):
        for quarter in ("2026-Q2", "2026-Q3"):
            insert_live(database[CHURN.name], {"region": region, "period": quarter, "status": "new", "submissions": 1})
    slice_sums = SliceSums()
    before = read(database, slice_sums, sums=BY_STATUS)
    assert before == {(region, quarter): 1 for region in ("eu", "uk") for quarter in ("2026-Q2", "2026-Q3")}
    database[CHURN.name].update_many({}, {"$set": {"submissions": 5}})
    assert read(database, slice_sums, sums=BY_STATUS) == before
    database["bi_loads"].update_one({"region": "eu"}, LATER)
    now = read(database, slice_sums, sums=BY_STATUS)
    assert now == before | {("eu", "2026-Q2"): 5, ("eu", "2026-Q3"): 5}


def test_slice_outside_ledger_is_always_read(database: Database[dict[str, Any]]) -> None:
    """Without a row of the ledger nothing says when a slice changes, so nothing of it is kept."""
    insert(database, "eu", "2026-10", 1, "audit")
    slice_sums = SliceSums()
    assert read(database, slice_sums) == {("eu", "2026-10"): 1}
    database[JOB.name].update_many({}, {"$set": {"submissions": 5}})
    assert read(database, slice_sums) == {("eu", "2026-10"): 5}
