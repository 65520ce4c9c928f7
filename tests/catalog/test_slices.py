"""Tests the ids, the `_id` ranges and the JSON form of slices."""

from __future__ import annotations

import pytest

from bi_ops.catalog.jobs import get_job
from bi_ops.catalog.slices import IdRange, Slice
from bi_ops.errors import BiError
from tests.load_helpers import monthly_slice

pytestmark = pytest.mark.fast


def contains(ids: IdRange, text: str) -> bool:
    return ids.start <= text < ids.end


def test_document_id_is_region_period_key() -> None:
    """A document's _id is its region, period and key."""
    slice_ = monthly_slice("2026-10")
    assert slice_.document_id(form_id=42) == "eu:2026-10:42"
    assert slice_.ledger_id == "monthly_submissions:eu:2026-10"
    assert contains(slice_.id_range, slice_.document_id(form_id=2**63 - 1))


@pytest.mark.parametrize("other", ["eu2", "eu_west", "e", "uk"])
def test_region_ranges_are_disjoint(other: str) -> None:
    """No region's range holds another region's documents."""
    assert not contains(monthly_slice().id_range, monthly_slice(region=other).document_id(form_id=42))
    assert not contains(monthly_slice(region=other).id_range, monthly_slice().document_id(form_id=42))


def test_period_ranges_are_disjoint() -> None:
    """No period's range holds another period's documents."""
    assert not contains(monthly_slice("2026-10").id_range, monthly_slice("2026-11").document_id(form_id=1))


def test_slice_json_round_trip() -> None:
    """A slice survives its JSON form."""
    slice_ = monthly_slice("2026-10", timezone="Europe/Dublin")
    assert Slice.from_json(slice_.to_json(), "Europe/Dublin") == slice_


def test_unknown_job_names_known() -> None:
    """An unknown job is named with the known ones."""
    with pytest.raises(BiError, match=r"monthly_submissions.*'monthly_visits'"):
        get_job("monthly_visits")
