"""Encodes the rows that a job's query returns as BSON documents, with the types that the job's fields declare."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import bson
from bson import DatetimeMS

from bi_ops.catalog.jobs import Field, FieldType, LoadMode
from bi_ops.catalog.slices import Slice
from bi_ops.errors import InvalidSourceRowError
from bi_ops.meg.query_guard import MAX_ARRAY_BYTES, MAX_TEXT_BYTES

SCHEMA_VERSION = 1
"""Increased when the meaning of a collection's documents changes."""

MAX_DOCUMENT_BYTES = 2**20
"""The maximum size of a document, so that memory stays flat."""

_INT64 = 2**63
"""The first integer that BSON cannot hold."""


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if not -_INT64 <= value < _INT64:
        raise ValueError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _require_type(type_: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, type_):
            raise TypeError
        return value

    return check


def _texts(value: Any) -> list[str | None]:
    if not isinstance(value, list) or not all(text is None or isinstance(text, str) for text in value):
        raise TypeError
    return value


def _time(value: Any) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError
    return value


_CONVERT: Mapping[FieldType, Callable[[Any], Any]] = {
    FieldType.INTEGER: _integer,
    FieldType.NUMBER: _number,
    FieldType.TEXT: _require_type(str),
    FieldType.TEXT_ARRAY: _texts,
    FieldType.BOOLEAN: _require_type(bool),
    FieldType.TIMESTAMP: _time,
}

_NEEDS_NO_CONVERSION: Mapping[FieldType, Callable[[Sequence[Any]], bool]] = {
    FieldType.INTEGER: lambda values: {*map(type, values)} == {int} and -_INT64 <= min(values) <= max(values) < _INT64,
    FieldType.NUMBER: lambda values: (
        {*map(type, values)} <= {float, type(None)} and all(map(math.isfinite, filter(None, values)))
    ),
    FieldType.TEXT: lambda values: {*map(type, values)} <= {str, type(None)},
    FieldType.TEXT_ARRAY: lambda values: {*map(type, values)} <= {type(None)},
    FieldType.BOOLEAN: lambda values: {*map(type, values)} <= {bool, type(None)},
    FieldType.TIMESTAMP: lambda values: (
        {*map(type, values)} <= {datetime, type(None)}
        and {value.tzinfo for value in values if value is not None} <= {timezone.utc}
    ),
}
"""Whether all values of a column can be stored as the driver returns them: a cheap check of the whole column."""

_ALLOWED: Mapping[FieldType, str] = {
    FieldType.INTEGER: "an integer of 64 bits (cast a numeric to bigint)",
    FieldType.NUMBER: "a finite number",
    FieldType.TEXT: "text",
    FieldType.TEXT_ARRAY: "an array of text",
    FieldType.BOOLEAN: "a boolean",
    FieldType.TIMESTAMP: "a timestamp with time zone",
}


_LIMITS: Mapping[FieldType, str] = {
    FieldType.TEXT: f"at most {MAX_TEXT_BYTES:,} bytes of text",
    FieldType.TEXT_ARRAY: f"at most {MAX_ARRAY_BYTES:,} bytes of text",
    FieldType.TIMESTAMP: "a time in the years 1 to 9999",
}
"""The limits on a value beyond its type, which the guarded query checks."""


class Pseudonymizer:
    """Replaces names of people with pseudonyms, which stay the same as long as the key does.

    Args:
        key: The secret key (HMAC-SHA256, RFC 2104).
        region: The region; ids of two regions are unrelated.
    """

    def __init__(self, key: str, region: str) -> None:
        self._key = key.encode()
        self._region = region

    def pseudonym_for(self, person_id: int) -> str:
        """The pseudonym of the person with this id in MEG: `person-` and 20 hexadecimal digits."""
        digest = hmac.digest(self._key, f"{self._region}:{person_id}".encode(), "sha256")
        return f"person-{digest.hex()[:20]}"


class DocumentEncoder:
    """Encodes rows of a job's query as the documents of a slice.

    Args:
        slice_: The slice.
        columns: The names of the query's columns, in order.
        pseudonyms: Replaces names of people; None if they are kept.

    Raises:
        InvalidSourceRowError: The columns are not the job's fields.
    """

    def __init__(self, slice_: Slice, columns: Sequence[str], pseudonyms: Pseudonymizer | None = None) -> None:
        self._slice = slice_
        self._pseudonyms = pseudonyms
        declared = {field.name: field for field in slice_.job.fields}
        missing = [name for name in declared if name not in columns]
        unknown = [name for name in columns if name not in declared]
        if missing or unknown or len(columns) != len(declared):
            raise InvalidSourceRowError(
                "the query's columns differ from the job's fields",
                context=str(slice_),
                expected=", ".join(declared),
                actual=f"missing: {', '.join(missing) or 'none'}; undeclared: {', '.join(unknown) or 'none'}; "
                f"{len(columns)} columns",
                hint=f"Correct include/sql/{slice_.job.name}.sql or the job's declaration in bi_ops/catalog/jobs.py.",
            )
        self._place = {name: place for place, name in enumerate(columns)}
        self._key_fields = slice_.job.key_fields
        # DatetimeMS, since pendulum's arithmetic would take longer than encoding the rest of a document.
        head: dict[str, Any] = {"region": slice_.region}
        if slice_.job.is_snapshot:
            head["as_of"] = DatetimeMS(slice_.as_of)
        elif slice_.job.mode is LoadMode.REPLACE_PERIOD and slice_.period:
            head |= {"period": slice_.period.name, "period_start": DatetimeMS(slice_.period.start)}
        self._head = head

    def __call__(self, rows: Sequence[Sequence[Any]]) -> list[bytes]:
        """Encode each row as a document, without the load metadata (`loaded_at`, `run_id`), which publish appends.

        Args:
            rows: The rows, with or without the column that `guard` adds.

        Raises:
            InvalidSourceRowError: A key is null, a value has another type or is too long, or a document is too large.
        """
        if not rows:
            return []
        raw_columns = [*zip(*rows, strict=True)]
        if len(raw_columns) > len(self._place) and any(raw_columns[-1]):
            raise self._guarded_value(next(row for row in rows if row[-1]))
        columns: dict[str, Sequence[Any]] = {}
        inner: dict[str, dict[str, Sequence[Any]]] = {}
        for field in self._slice.job.fields:
            outer, _, name = field.name.partition(".")
            values = self._convert_column(field, raw_columns[self._place[field.name]], rows)
            columns[outer] = values
            if name:
                inner.setdefault(outer, {})[name] = values
        for outer, fields in inner.items():
            columns[outer] = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
        ids = self._ids([raw_columns[self._place[name]] for name in self._key_fields], rows)
        documents = [
            bson.encode(
                {"_id": id_, **self._head, **dict(zip(columns, values, strict=True)), "schema_version": SCHEMA_VERSION}
            )
            for id_, values in zip(ids, zip(*columns.values(), strict=True), strict=True)
        ]
        largest = max(documents, key=len)
        if len(largest) > MAX_DOCUMENT_BYTES:
            raise self._row_error(
                "the document is too large",
                rows[documents.index(largest)],
                f"at most {MAX_DOCUMENT_BYTES:,} bytes",
                f"{len(largest):,} bytes",
            )
        return documents

    def _guarded_value(self, row: Sequence[Any]) -> InvalidSourceRowError:
        """The error for a row with a value that the guarded query rejected."""
        name, _, actual = row[-1].partition(": ")
        field_type = next(field.type for field in self._slice.job.fields if field.name == name)
        return self._row_error(f"invalid value in {name}", row, _LIMITS.get(field_type, _ALLOWED[field_type]), actual)

    def _ids(self, keys: Sequence[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> list[str]:
        for row in rows if any(None in column for column in keys) else ():
            key = self._key(row)
            if None in key.values():
                raise self._row_error("null key", row, f"a value in {', '.join(key)}", f"{[*key.values()]}")
        format_key, prefix = self._slice.job.key.format_map, self._slice.prefix
        names = self._key_fields
        return [prefix + format_key(dict(zip(names, key, strict=True))) for key in zip(*keys, strict=True)]

    def _key(self, row: Sequence[Any]) -> dict[str, Any]:
        return {name: row[self._place[name]] for name in self._key_fields}

    def _convert_column(self, field: Field, values: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """The stored values of a column; converted value by value only if the check of the whole column fails."""
        if not (field.person_id_field and self._pseudonyms) and _NEEDS_NO_CONVERSION[field.type](values):
            return values
        return [self._convert(field, value, row) for value, row in zip(values, rows, strict=True)]

    def _convert(self, field: Field, value: Any, row: Sequence[Any]) -> Any:
        if value is None:
            return None
        if field.person_id_field and self._pseudonyms is not None:
            return self._pseudonyms.pseudonym_for(row[self._place[field.person_id_field]])
        try:
            return _CONVERT[field.type](value)
        except (TypeError, ValueError):
            raise self._row_error(
                f"invalid value in {field.name}",
                row,
                _ALLOWED[field.type],
                f"{type(value).__name__} {value if isinstance(value, (int, float, Decimal)) else ''}".strip(),
            ) from None

    def _row_error(self, problem: str, row: Sequence[Any], expected: str, actual: str) -> InvalidSourceRowError:
        key = ", ".join(f"{name} {value}" for name, value in self._key(row).items())
        return InvalidSourceRowError(
            f"invalid row ({key}): {problem}",
            context=str(self._slice),
            expected=expected,
            actual=actual,
            hint=f"Correct the row in MEG, or the column in include/sql/{self._slice.job.name}.sql.",
        )
