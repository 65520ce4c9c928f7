"""Sorted streams of documents, cut at the same `_id`s: so that they can be merged, or held against each other.

A document is its bytes alone, and its `_id` is looked up in them: with pairs of both, Python's garbage collector would
have an object to look at for each document.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from bi_ops.mongo.raw_bson import get_id


def windows(streams: Sequence[Iterator[list[bytes]]]) -> Iterator[list[list[bytes]]]:
    """What each stream has up to some `_id`, then up to a greater one, until all have ended.

    Args:
        streams: Encoded documents, each stream in batches that are not empty and in the order of the `_id`s.

    Yields:
        A list for each stream, which may be empty; what has the same `_id` is in the same window.
    """
    heads = [next(stream, []) for stream in streams]
    while any(heads):
        last = min(get_id(head[-1]) for head in heads if head)
        window = []
        for number, head in enumerate(heads):
            cut = bisect_right(head, last, key=get_id)
            window.append(head[:cut])
            heads[number] = head[cut:] or next(streams[number], [])
        yield window
