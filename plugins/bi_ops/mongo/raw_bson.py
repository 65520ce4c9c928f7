"""Reads and extends documents in their encoded form, where to decode them would cost a fifth more.

A live document is the staged one, byte for byte, with the load metadata after its last field. A bucket ends with an
array of staged documents, whose keys are their places as text (https://bsonspec.org):

    staged |length|02 _id 00|n|id 00|other fields|00|
    live   |length|02 _id 00|n|id 00|other fields|09 loaded_at 00|time|02 run_id 00|n|run id 00|00|
    bytes      4        5    4    n                      11         8        8      4     n      1

    bucket |length|02 _id 00|n|id 00|other fields|04 documents 00|length|03 0 00|staged|03 1 00|staged|...|00|00|
    bytes      4        5    4    n                      11          4      3             3             1  1

`length` is that of the whole document, `n` that of the text after it; both are little-endian int32. The `_id` is text,
and always the first field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from struct import Struct
from typing import Any

import bson

_INT32 = Struct("<i")
_LENGTH = _INT32.size
_ID_OFFSET = _LENGTH + len(b"\x02_id\0") + _LENGTH
_LOADED_AT = b"\x09loaded_at\0"
_TIME = 8
_RUN_ID = b"\x02run_id\0"
_DOCUMENTS = b"\x04documents\0"
MAX_BUCKET_DOCUMENTS = 1_000
_KEYS = tuple(b"\x03%d\0" % place for place in range(MAX_BUCKET_DOCUMENTS))


def get_id(raw: bytes) -> bytes:
    """The `_id` of a document, in UTF-8: its bytes sort as MongoDB sorts it."""
    length = int.from_bytes(raw[_ID_OFFSET - _LENGTH : _ID_OFFSET], "little")
    return raw[_ID_OFFSET : _ID_OFFSET + length - 1]


def encode_load_metadata(loaded_at: datetime, run_id: str) -> bytes:
    """The fields that `append_load_metadata` adds: when the document became what it is, and by which DAG run."""
    return bson.encode({"loaded_at": loaded_at, "run_id": run_id})[_LENGTH:-1]


def append_load_metadata(staged: bytes, load_metadata: bytes) -> bytes:
    """The live form of a staged document."""
    return _append(staged, load_metadata)


def equal_ignoring_load_metadata(live: bytes, staged: bytes) -> bool:
    """Whether a live document is this staged one, apart from its load metadata."""
    loaded_at = len(staged) - 1
    run_id = loaded_at + len(_LOADED_AT) + _TIME
    text = run_id + len(_RUN_ID) + _LENGTH
    return (
        live.startswith(staged[_LENGTH:-1], _LENGTH)
        and live.startswith(_LOADED_AT, loaded_at)
        and live.startswith(_RUN_ID, run_id)
        and text + int.from_bytes(live[text - _LENGTH : text], "little") + 1 == len(live)  # nothing follows
    )


def encode_bucket(fields: Mapping[str, Any], documents: Sequence[bytes]) -> bytes:
    """A document of these fields, and of an array `documents`.

    Args:
        fields: The bucket's fields, `_id` first.
        documents: Encoded documents, at most `MAX_BUCKET_DOCUMENTS`.
    """
    array = b"".join(chain.from_iterable(zip(_KEYS, documents, strict=False)))
    return _append(bson.encode(fields), b"".join((_DOCUMENTS, _INT32.pack(len(array) + _LENGTH + 1), array, b"\0")))


def decode_bucket(bucket: bytes) -> list[bytes]:
    """The documents of a bucket."""
    documents = []
    first = bucket.index(_DOCUMENTS, _ID_OFFSET + len(get_id(bucket))) + len(_DOCUMENTS) + _LENGTH
    for key in _KEYS:
        if bucket[first] == 0:
            break
        first += len(key)
        end = first + int.from_bytes(bucket[first : first + _LENGTH], "little")
        documents.append(bucket[first:end])
        first = end
    return documents


def split(batch: bytes) -> Iterator[bytes]:
    """The documents of a raw batch, which is their bytes one after the other."""
    first = 0
    while first < len(batch):
        end = first + int.from_bytes(batch[first : first + _LENGTH], "little")
        yield batch[first:end]
        first = end


def _append(document: bytes, fields: bytes) -> bytes:
    return b"".join((_INT32.pack(len(document) + len(fields)), document[_LENGTH:-1], fields, b"\0"))
