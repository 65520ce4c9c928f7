"""Tests the list of loads on the reports page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bi_ops.reports.load_history import MAX_LOADS, list_loads
from tests.meg_factory import utc

pytestmark = pytest.mark.fast

NOW = utc(2026, 11, 2, 12)


def ledger_row(**changes: Any) -> dict[str, Any]:
    return {
        "job": "monthly_submissions",
        "region": "eu",
        "period": "2026-10",
        "as_of": utc(2026, 11, 1),
        "run_id": "scheduled__2026-10__2026-11-01T00:00:00+00:00",
        "documents": 12,
        "previous_documents": 10,
        "forced": False,
        "published_at": NOW,
        **changes,
    }


def test_load_shows_ledger_row() -> None:
    [load] = list_loads([ledger_row(forced=True)])
    assert (load.job, load.region, load.as_of) == ("monthly_submissions", "eu", "2026-10")
    assert (load.documents, load.previous_documents, load.forced) == (12, 10, True)
    assert load.published_at == "2026-11-02T12:00:00+00:00"
    run_id = "scheduled__2026-10__2026-11-01T00%3A00%3A00%2B00%3A00"
    assert load.run_path == f"/dags/bi_monthly/runs/{run_id}"


@pytest.mark.parametrize(
    ("run_id", "trigger"),
    [
        ("scheduled__2026-11-01T00:00:00+00:00", "schedule"),
        ("scheduled__2026-10__2026-11-01T00:00:00+00:00", "schedule"),
        ("backfill__2026-11-01T00:00:00+00:00", "backfill"),
        ("bi_backfill__2026-10__0__scheduled__2026-11-02T06:00:00+00:00", "backfill"),
        ("manual__2026-11-02T10:00:00+00:00", "manual"),
        ("correction", "manual"),
    ],
)
def test_load_names_trigger(run_id: str, trigger: str) -> None:
    """What started a run is read from its id."""
    assert [load.trigger for load in list_loads([ledger_row(run_id=run_id)])] == [trigger]


def test_loads_are_newest_first_and_bounded() -> None:
    """A publish in progress and rows of unknown jobs are left out."""
    rows = [ledger_row(published_at=NOW + timedelta(minutes=number), documents=number) for number in range(300)]
    others = [ledger_row(published_at=None), ledger_row(job="another")]
    loads = list_loads([*others, *rows])
    assert [load.documents for load in loads] == [*range(299, 299 - MAX_LOADS, -1)]


def test_load_of_snapshot_has_instant() -> None:
    """A snapshot has no period, and an early row of the ledger no count of the documents before."""
    row = ledger_row(job="forms", period=None)
    del row["previous_documents"]
    [load] = list_loads([row])
    assert (load.as_of, load.previous_documents) == ("2026-11-01T00:00:00+00:00", None)
