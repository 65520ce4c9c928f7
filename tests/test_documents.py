from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions

from bi_ops.documents import DocumentMaker
from bi_ops.encoded import id_of, load_stamps, pack, says_the_same, split, stamped, unpacked
from bi_ops.errors import SourceRowError
from tests.loads import SUBMISSIONS, month
from tests.megs import utc

COLUMNS = [field.name for field in SUBMISSIONS.fields]
ROW: dict[str, Any] = {
    **dict.fromkeys(COLUMNS, 0),
    "institution_name": "St. Mary's",
    "form_name": "Falls",
    "form_type": "audit",
    "form_id": 7,
    "first_submitted_at": datetime(2026, 10, 5, 14, tzinfo=timezone(timedelta(hours=2))),
    "last_submitted_at": None,
    "change_pct": Decimal("12.50"),
}

AWARE: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


def make(**changed: Any) -> bytes:
    [document] = DocumentMaker(month(), COLUMNS)([[*{**ROW, **changed}.values()]])
    return document


def test_a_row_becomes_a_document() -> None:
    document = bson.decode(make(), AWARE)
    assert document["_id"] == "eu:2026-10:7"
    assert document["submissions_by_platform"] == {"web": 0, "ios": 0, "android": 0, "public": 0}
    assert document["change_pct"] == 12.5
    assert isinstance(document["change_pct"], float)
    assert document["last_submitted_at"] is None
    assert document["first_submitted_at"] == utc(2026, 10, 5, 12)
    assert make() == bson.encode(document)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("submissions", Decimal(3)),
        ("submissions", True),
        ("submissions", "3"),
        ("submissions", 2**63),
        ("change_pct", Decimal("NaN")),
        ("change_pct", float("inf")),
        ("change_pct", "12"),
        ("form_name", 5),
        ("first_submitted_at", utc(2026, 10, 5).replace(tzinfo=None)),
        ("first_submitted_at", date(2026, 10, 5)),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name_and_row(field: str, value: object) -> None:
    with pytest.raises(SourceRowError) as caught:
        make(**{field: value})
    message = str(caught.value)
    assert field in message
    assert "form_id 7" in message
    assert type(value).__name__ in message


def test_text_of_the_source_is_kept_out_of_messages() -> None:
    with pytest.raises(SourceRowError) as caught:
        make(submissions="Aoife Byrne")
    assert "Aoife" not in str(caught.value)


def test_a_row_without_key_is_refused() -> None:
    with pytest.raises(SourceRowError, match="no key"):
        make(form_id=None)


@pytest.mark.parametrize("columns", [COLUMNS[:-1], [*COLUMNS, "extra"], [*COLUMNS, "form_id"]])
def test_columns_that_are_not_the_fields_are_refused(columns: list[str]) -> None:
    with pytest.raises(SourceRowError, match="not the job's fields"):
        DocumentMaker(month(), columns)


def test_columns_may_stand_in_any_order() -> None:
    maker = DocumentMaker(month(), COLUMNS[::-1])
    assert maker([[*ROW.values()][::-1]]) == [make()]


def test_stamps_go_behind_the_last_field_and_count_for_nothing() -> None:
    staged = make()
    live = stamped(staged, load_stamps(utc(2026, 11, 1), "run 1"))
    assert bson.decode(live, AWARE) == {
        **bson.decode(staged, AWARE),
        "loaded_at": utc(2026, 11, 1),
        "run_id": "run 1",
    }
    assert id_of(live) == id_of(staged) == b"eu:2026-10:7"
    assert says_the_same(live, staged)
    assert says_the_same(stamped(staged, load_stamps(utc(2026, 12, 1), "a longer run id")), staged)


@pytest.mark.parametrize("changed", [{"submissions": 1}, {"form_name": "Fallz"}, {"change_pct": None}])
def test_one_value_makes_a_document_another(changed: dict[str, Any]) -> None:
    live = stamped(make(), load_stamps(utc(2026, 11, 1), "run 1"))
    assert not says_the_same(live, make(**changed))


def test_rows_become_the_same_documents_together_as_each_alone() -> None:
    """A column that is looked at as a whole, and one in which a value must be looked at by itself."""
    many = [
        {"form_id": 8, "change_pct": 0.5, "last_submitted_at": utc(2026, 10, 5)},
        {"form_id": 9, "change_pct": None, "wards": None, "form_name": None},
        {"form_id": 10, "change_pct": Decimal("0.1"), "submissions": 2**62},
    ]
    together = DocumentMaker(month(), COLUMNS)([[*{**ROW, **changed}.values()] for changed in many])
    assert together == [make(**changed) for changed in many]
    assert DocumentMaker(month(), COLUMNS)([]) == []


@pytest.mark.parametrize("count", [1, 9, 10, 11, 1000])
def test_what_is_packed_comes_out_again_to_the_byte(count: int) -> None:
    documents = [make(form_id=number) for number in range(count)]
    packed = pack("a name\x04documents", {"count": count}, documents)
    assert unpacked(packed) == documents
    assert bson.decode(packed, AWARE)["documents"] == [bson.decode(document, AWARE) for document in documents]
    assert [*split(b"".join(documents))] == documents
