from __future__ import annotations

import pytest

from bi_ops.errors import BiError
from bi_ops.jobs import job_named
from bi_ops.slices import IdRange, Slice
from tests.loads import month


def contains(ids: IdRange, text: str) -> bool:
    return ids.first <= text < ids.end


def test_ids_are_region_period_key() -> None:
    of = month("2026-10")
    assert of.document_id(form_id=42) == "eu:2026-10:42"
    assert of.ledger_id == "monthly_submissions:eu:2026-10"
    assert contains(of.ids, of.document_id(form_id=2**63 - 1))


@pytest.mark.parametrize("other", ["eu2", "eu_west", "e", "uk"])
def test_no_region_lies_in_the_range_of_another(other: str) -> None:
    assert not contains(month().ids, month(region=other).document_id(form_id=42))
    assert not contains(month(region=other).ids, month().document_id(form_id=42))


def test_no_period_lies_in_the_range_of_another() -> None:
    assert not contains(month("2026-10").ids, month("2026-11").document_id(form_id=1))


def test_a_slice_survives_its_way_through_xcom() -> None:
    of = month("2026-10", timezone="Europe/Dublin")
    assert Slice.from_json(of.to_json(), "Europe/Dublin") == of


def test_an_unknown_job_is_named_beside_the_known_ones() -> None:
    with pytest.raises(BiError, match=r"monthly_submissions.*'monthly_visits'"):
        job_named("monthly_visits")
