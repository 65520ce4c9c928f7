from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions

from bi_ops.documents import DocumentMaker, id_of, load_stamps, says_the_same, stamped
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


def make(**changed: Any) -> dict[str, Any]:
    return DocumentMaker(month(), COLUMNS)([*{**ROW, **changed}.values()])


def test_a_row_becomes_a_document() -> None:
    document = make()
    assert document["_id"] == "eu:2026-10:7"
    assert document["submissions_by_platform"] == {"web": 0, "ios": 0, "android": 0, "public": 0}
    assert document["change_pct"] == 12.5
    assert isinstance(document["change_pct"], float)
    assert document["last_submitted_at"] is None
    assert bson.decode(bson.encode(document), AWARE)["first_submitted_at"] == utc(2026, 10, 5, 12)


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
    assert maker([*ROW.values()][::-1]) == make()


def test_stamps_go_behind_the_last_field_and_count_for_nothing() -> None:
    staged = bson.encode(make())
    live = stamped(staged, load_stamps(utc(2026, 11, 1), "run 1"))
    assert bson.decode(live, AWARE) == {
        **bson.decode(staged, AWARE),
        "loaded_at": utc(2026, 11, 1),
        "run_id": "run 1",
    }
    assert id_of(live) == id_of(staged) == "eu:2026-10:7"
    assert says_the_same(live, staged)
    assert says_the_same(stamped(staged, load_stamps(utc(2026, 12, 1), "a longer run id")), staged)


@pytest.mark.parametrize("changed", [{"submissions": 1}, {"form_name": "Fallz"}, {"change_pct": None}])
def test_one_value_makes_a_document_another(changed: dict[str, Any]) -> None:
    live = stamped(bson.encode(make()), load_stamps(utc(2026, 11, 1), "run 1"))
    assert not says_the_same(live, bson.encode(make(**changed)))
