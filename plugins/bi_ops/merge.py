"""Sorted streams of documents, cut at the same `_id`s: so that they can be merged, or held against each other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter

Named = tuple[bytes, bytes]
"""A document's `_id` and the document, encoded."""


def windows(streams: Sequence[Iterator[list[Named]]]) -> Iterator[list[list[Named]]]:
    """What each stream has up to some `_id`, then up to a greater one, until all have ended.

    Args:
        streams: Each in batches that are not empty, in the order of the `_id`s.

    Yields:
        A list for each stream, which may be empty; what has the same `_id` is in the same window.
    """
    heads = [next(stream, []) for stream in streams]
    while any(heads):
        last = min(head[-1][0] for head in heads if head)
        window = []
        for number, head in enumerate(heads):
            cut = bisect_right(head, last, key=itemgetter(0))
            window.append(head[:cut])
            heads[number] = head[cut:] or next(streams[number], [])
        yield window
