"""Encoded documents, put together, taken apart and compared as they are: to decode one costs more than to move it.

A live document is a staged one, byte for byte, with the load metadata `loaded_at` and `run_id` after its last field. So
two documents are equal when they are equal up to the load metadata. The bytes are those of https://bsonspec.org:
an int32 length, the elements, a zero byte; the `_id`, which is text, is the first element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from struct import Struct
from typing import Any

import bson

_LENGTH = 4
_length = Struct("<i").pack
_ID = b"\x02_id\0"
_ID_TEXT = _LENGTH + len(_ID) + _LENGTH
_DOCUMENTS = b"\x04documents\0"
MAX_BUCKET_DOCUMENTS = 1_000
_PLACES = tuple(b"\x03%d\0" % place for place in range(MAX_BUCKET_DOCUMENTS))
_STAMPS = b"\x09loaded_at\0"
_STAMPS_BEFORE_RUN = len(_STAMPS) + 8 + len(b"\x02run_id\0") + _LENGTH


def elements(fields: Mapping[str, Any]) -> bytes:
    """The elements of some fields, to be put into `document`."""
    return bson.encode(fields)[_LENGTH:-1]


def id_element(value: bytes) -> bytes:
    """The element of an `_id` that is this text in UTF-8."""
    return b"".join((_ID, _length(len(value) + 1), value, b"\0"))


def document(*parts: bytes) -> bytes:
    """The document of these elements."""
    return b"".join((_length(sum(map(len, parts)) + _LENGTH + 1), *parts, b"\0"))


def get_id(raw: bytes) -> bytes:
    """The `_id` of a document, in UTF-8: so it sorts as MongoDB sorts it."""
    length = int.from_bytes(raw[_ID_TEXT - _LENGTH : _ID_TEXT], "little")
    return raw[_ID_TEXT : _ID_TEXT + length - 1]


def encode_load_metadata(loaded_at: datetime, run_id: str) -> bytes:
    """The elements that `append_load_metadata` adds: when the document came to be as it is, and by which DAG run."""
    return elements({"loaded_at": loaded_at, "run_id": run_id})


def append_load_metadata(staged: bytes, load_metadata: bytes) -> bytes:
    """The live form of a staged document."""
    return document(staged[_LENGTH:-1], load_metadata)


def equal_ignoring_load_metadata(live: bytes, staged: bytes) -> bool:
    """Whether a live document is this staged one, apart from its load metadata."""
    if not live[_LENGTH:].startswith(staged[_LENGTH:-1] + _STAMPS):
        return False
    run_id = len(staged) - 1 + _STAMPS_BEFORE_RUN
    length = int.from_bytes(live[run_id - _LENGTH : run_id], "little")
    return live[-1] == 0 and run_id + length + 1 == len(live)  # nothing after the load metadata


def encode_bucket(name: str, about: Mapping[str, Any], documents: Sequence[bytes]) -> bytes:
    """One document around many: `{_id: <name>, ..., documents: [...]}`.

    Args:
        name: Its `_id`.
        about: Its further fields.
        documents: At most `MAX_BUCKET_DOCUMENTS`.
    """
    array = document(*chain.from_iterable(zip(_PLACES, documents, strict=False)))
    return document(id_element(name.encode()), elements(about), _DOCUMENTS, array)


def decode_bucket(packed: bytes) -> list[bytes]:
    """The documents of a bucket."""
    found = []
    behind_id = _ID_TEXT + len(get_id(packed)) + 1
    first = packed.index(_DOCUMENTS, behind_id) + len(_DOCUMENTS) + _LENGTH
    for place in _PLACES:
        if packed[first] == 0:
            break
        first += len(place)
        end = first + int.from_bytes(packed[first : first + _LENGTH], "little")
        found.append(packed[first:end])
        first = end
    return found


def split(batch: bytes) -> Iterator[bytes]:
    """The documents of a raw cursor's batch, in which they stand one behind the other."""
    first = 0
    while first < len(batch):
        end = first + int.from_bytes(batch[first : first + _LENGTH], "little")
        yield batch[first:end]
        first = end
