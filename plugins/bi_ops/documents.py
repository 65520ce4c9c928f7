"""Documents: how a row of MEG's becomes BSON, and how a staged document is held against a live one.

A live document is a staged one, byte for byte, with the two load stamps `loaded_at` and `run_id` behind its last
field. So two documents say the same when they are equal up to the stamps, and neither is ever decoded to tell.
The bytes are those of https://bsonspec.org: an int32 length, the elements, a zero byte.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import bson

from bi_ops.errors import SourceRowError
from bi_ops.jobs import Field, Kind, Mode
from bi_ops.slices import Slice

SCHEMA_VERSION = 1
"""Raised when a collection's documents change their meaning."""

_INT64 = 2**63
"""The first integer that BSON cannot hold."""
_LENGTH = 4
_ID_TEXT = _LENGTH + len(b"\x02_id\0") + 4
_STAMPS = b"\x09loaded_at\0"
_STAMPS_BEFORE_RUN = len(_STAMPS) + 8 + len(b"\x02run_id\0") + 4


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


def _instance_of(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kind):
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


_CONVERT: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.TEXT: _instance_of(str),
    Kind.TEXTS: _texts,
    Kind.BOOLEAN: _instance_of(bool),
    Kind.TIME: _time,
}

_ALLOWED: Mapping[Kind, str] = {
    Kind.INTEGER: "an integer of 64 bits (cast a numeric to bigint)",
    Kind.NUMBER: "a finite number",
    Kind.TEXT: "text",
    Kind.TEXTS: "an array of text",
    Kind.BOOLEAN: "a boolean",
    Kind.TIME: "a timestamp with time zone",
}


class Pseudonyms:
    """What stands for a person where names must not leave MEG: the same for as long as the key is the same.

    Args:
        key: The secret of which they are made (HMAC-SHA256, RFC 2104).
        region: The region of the people; ids of two regions have nothing to do with each other.
    """

    def __init__(self, key: str, region: str) -> None:
        self._key = key.encode()
        self._region = region

    def of(self, person_id: int) -> str:
        """The pseudonym of the person with this id in MEG: `person-` and 80 bits as hexadecimal digits."""
        digest = hmac.digest(self._key, f"{self._region}:{person_id}".encode(), "sha256")
        return f"person-{digest.hex()[:20]}"


class DocumentMaker:
    """Makes the documents of one slice from the rows of its SQL template.

    Args:
        of: The slice.
        columns: The names of the result's columns, in its order.
        pseudonyms: What replaces the names of people; None where they stay.

    Raises:
        SourceRowError: The columns are not the job's fields.
    """

    def __init__(self, of: Slice, columns: Sequence[str], pseudonyms: Pseudonyms | None = None) -> None:
        self._slice = of
        self._pseudonyms = pseudonyms
        declared = {field.name: field for field in of.job.fields}
        missing = [name for name in declared if name not in columns]
        unknown = [name for name in columns if name not in declared]
        if missing or unknown or len(columns) != len(declared):
            raise SourceRowError(
                "the SQL template's columns are not the job's fields",
                where=str(of),
                expected=", ".join(declared),
                found=f"missing {', '.join(missing) or 'none'}; not declared {', '.join(unknown) or 'none'}; "
                f"{len(columns)} columns",
                cure=f"Mend include/sql/{of.job.name}.sql or the job's declaration in bi_ops/jobs.py.",
            )
        self._place = {name: place for place, name in enumerate(columns)}
        self._fields = [(field, *field.name.partition(".")[::2], self._place[field.name]) for field in of.job.fields]
        self._key_fields = of.job.key_fields
        self._head: dict[str, Any] = {"region": of.region}
        if of.job.is_snapshot:
            self._head["as_of"] = of.as_of
        elif of.job.mode is Mode.APPEND and of.period:
            self._head |= {"period": of.period.name, "period_start": of.period.start}

    def __call__(self, row: Sequence[Any]) -> dict[str, Any]:
        """The document of one row, as the live collection has it but for the load stamps.

        Raises:
            SourceRowError: The key is null, or a value is not of its field's kind.
        """
        key = self._key(row)
        if None in key.values():
            raise self._refusal("a row has no key", row, f"{', '.join(key)} to be set", f"{[*key.values()]}")
        document: dict[str, Any] = {"_id": self._slice.document_id(**key), **self._head}
        for field, outer, inner, place in self._fields:
            value = self._value(field, row[place], row)
            if inner:
                document.setdefault(outer, {})[inner] = value
            else:
                document[outer] = value
        document["schema_version"] = SCHEMA_VERSION
        return document

    def _key(self, row: Sequence[Any]) -> dict[str, Any]:
        return {name: row[self._place[name]] for name in self._key_fields}

    def _value(self, field: Field, value: Any, row: Sequence[Any]) -> Any:
        if value is None:
            return None
        if field.names and self._pseudonyms is not None:
            return self._pseudonyms.of(row[self._place[field.names]])
        try:
            return _CONVERT[field.kind](value)
        except (TypeError, ValueError):
            raise self._refusal(
                f"{field.name} cannot be stored",
                row,
                _ALLOWED[field.kind],
                f"{type(value).__name__} {value if isinstance(value, (int, float, Decimal)) else ''}".strip(),
            ) from None

    def _refusal(self, what: str, row: Sequence[Any], expected: str, found: str) -> SourceRowError:
        key = ", ".join(f"{name} {value}" for name, value in self._key(row).items())
        return SourceRowError(
            f"{what}, in the row of {key}",
            where=str(self._slice),
            expected=expected,
            found=found,
            cure=f"Mend the row in MEG, or the column in include/sql/{self._slice.job.name}.sql.",
        )


def id_of(raw: bytes) -> str:
    """The `_id`, a string, of an encoded document; MongoDB keeps it as the first element."""
    length = int.from_bytes(raw[_ID_TEXT - 4 : _ID_TEXT], "little")
    return raw[_ID_TEXT : _ID_TEXT + length - 1].decode()


def load_stamps(loaded_at: datetime, run_id: str) -> bytes:
    """The elements that `stamped` adds: when the document came to be as it is, and by which DAG run."""
    return bson.encode({"loaded_at": loaded_at, "run_id": run_id})[_LENGTH:-1]


def stamped(staged: bytes, stamps: bytes) -> bytes:
    """The live form of an encoded staged document."""
    length = len(staged) + len(stamps)
    return b"".join((length.to_bytes(_LENGTH, "little"), staged[_LENGTH:-1], stamps, b"\0"))


def says_the_same(live: bytes, staged: bytes) -> bool:
    """Whether a live document is this staged one, whatever its load stamps."""
    if not live[_LENGTH:].startswith(staged[_LENGTH:-1] + _STAMPS):
        return False
    run_id = len(staged) - 1 + _STAMPS_BEFORE_RUN
    length = int.from_bytes(live[run_id - 4 : run_id], "little")
    return live[-1] == 0 and run_id + length + 1 == len(live)  # nothing of anybody else's behind the stamps
