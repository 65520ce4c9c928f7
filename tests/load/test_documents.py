"""Tests how SQL rows become encoded documents, and how these are compared and packed into buckets."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions

from bi_ops.errors import InvalidSourceRowError
from bi_ops.load.documents import DocumentEncoder
from bi_ops.mongo.raw_bson import (
    append_load_metadata,
    decode_bucket,
    encode_bucket,
    encode_load_metadata,
    equal_ignoring_load_metadata,
    get_id,
    split,
)
from tests.load_helpers import SUBMISSIONS, monthly_slice
from tests.meg_factory import utc

pytestmark = pytest.mark.fast

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
    [document] = DocumentEncoder(monthly_slice(), COLUMNS)([[*{**ROW, **changed}.values()]])
    return document


def test_row_becomes_document() -> None:
    """A row becomes a document."""
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
def test_wrong_type_names_field_and_row(field: str, value: object) -> None:
    """A value of a wrong type is refused with its field and row."""
    with pytest.raises(InvalidSourceRowError) as caught:
        make(**{field: value})
    message = str(caught.value)
    assert field in message
    assert "form_id 7" in message
    assert type(value).__name__ in message


def test_errors_hide_source_text() -> None:
    """No error repeats a text of MEG."""
    with pytest.raises(InvalidSourceRowError) as caught:
        make(submissions="Aoife Byrne")
    assert "Aoife" not in str(caught.value)


def test_row_without_key_is_refused() -> None:
    """A row without a key is refused."""
    with pytest.raises(InvalidSourceRowError, match="null key"):
        make(form_id=None)


@pytest.mark.parametrize("columns", [COLUMNS[:-1], [*COLUMNS, "extra"], [*COLUMNS, "form_id"]])
def test_unknown_columns_are_refused(columns: list[str]) -> None:
    """Columns that are not the job's fields are refused."""
    with pytest.raises(InvalidSourceRowError, match="differ from the job's fields"):
        DocumentEncoder(monthly_slice(), columns)


def test_columns_in_any_order() -> None:
    """Columns may come in any order."""
    encoder = DocumentEncoder(monthly_slice(), COLUMNS[::-1])
    assert encoder([[*ROW.values()][::-1]]) == [make()]


def test_load_metadata_is_ignored_in_comparison() -> None:
    """Load metadata comes last and does not count in a comparison."""
    staged = make()
    live = append_load_metadata(staged, encode_load_metadata(utc(2026, 11, 1), "run 1"))
    assert bson.decode(live, AWARE) == {
        **bson.decode(staged, AWARE),
        "loaded_at": utc(2026, 11, 1),
        "run_id": "run 1",
    }
    assert get_id(live) == get_id(staged) == b"eu:2026-10:7"
    assert equal_ignoring_load_metadata(live, staged)
    assert equal_ignoring_load_metadata(
        append_load_metadata(staged, encode_load_metadata(utc(2026, 12, 1), "a longer run id")), staged
    )


@pytest.mark.parametrize("changed", [{"submissions": 1}, {"form_name": "Fallz"}, {"change_pct": None}])
def test_one_value_makes_documents_differ(changed: dict[str, Any]) -> None:
    """Documents that differ in one value are not equal."""
    live = append_load_metadata(make(), encode_load_metadata(utc(2026, 11, 1), "run 1"))
    assert not equal_ignoring_load_metadata(live, make(**changed))


def test_batch_encodes_like_single_rows() -> None:
    """A batch encodes like its rows one by one, whether a column is checked as a whole or value by value."""
    many = [
        {"form_id": 8, "change_pct": 0.5, "last_submitted_at": utc(2026, 10, 5)},
        {"form_id": 9, "change_pct": None, "wards": None, "form_name": None},
        {"form_id": 10, "change_pct": Decimal("0.1"), "submissions": 2**62},
    ]
    together = DocumentEncoder(monthly_slice(), COLUMNS)([[*{**ROW, **changed}.values()] for changed in many])
    assert together == [make(**changed) for changed in many]
    assert DocumentEncoder(monthly_slice(), COLUMNS)([]) == []


@pytest.mark.parametrize("count", [1, 9, 10, 11, 1000])
def test_bucket_round_trip(count: int) -> None:
    """A bucket returns its documents byte for byte."""
    documents = [make(form_id=number) for number in range(count)]
    bucket = encode_bucket({"_id": "a name\x04documents", "count": count}, documents)
    assert decode_bucket(bucket) == documents
    assert bucket == bson.encode(
        {
            "_id": "a name\x04documents",
            "count": count,
            "documents": [bson.decode(document, AWARE) for document in documents],
        }
    )
    assert [*split(b"".join(documents))] == documents
