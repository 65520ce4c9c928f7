"""Reads the live slice continuously, and checks that each read is one whole version of the month."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from dev.embedded_stack import LIVE_DATABASE
from tests.chaos.attempt import MONTH
from tests.chaos.stats import ChaosStats
from tests.load_helpers import SUBMISSIONS

FORMS = 2_450
"""Enough for two batches of writes in one transaction; each version lacks a seventh of them."""
READER_INDEX = {"region": 1, "period": 1, "form_id": 1, "form_name": 1}
"""Holds all that the reader compares, so that a read of the slice costs a third of one that fetches the documents."""
READER_PAUSE = 0.01
"""Seconds between two reads of the slice."""


@cache
def expected(version: int) -> frozenset[int]:
    """The form ids of a version: from one version to the next some appear, some disappear and all others change."""
    return frozenset(form for form in range(1, FORMS + 1) if form % 7 != version % 7)


def describe_content(form_ids: dict[Any, list[int]]) -> str:
    """The version that the documents are, `v1`, `v2`, ..., or what they are where they are no whole version.

    Args:
        form_ids: The form id of each document, by form name.
    """
    if len(form_ids) == 1:
        [(name, ids)] = form_ids.items()
        form_ids_of_version = expected(int(name[1:])) if str(name).startswith("v") else frozenset()
        if len(ids) == len(form_ids_of_version) and form_ids_of_version.issuperset(ids):
            return str(name)
    return f"{sum(map(len, form_ids.values()))} documents, versions {sorted(map(str, form_ids))}"


class Reader(threading.Thread):
    """Reads the live slice in snapshots continuously, and compares each with the versions that may be live."""

    def __init__(self, client: MongoClient[dict[str, Any]], stats: ChaosStats) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._stats = stats
        self._ended = threading.Event()
        self.allowed: set[int] = set()

    def run(self) -> None:
        while not self._ended.is_set():
            allowed = set(self.allowed)
            try:
                content = describe_content(self._read())
            except PyMongoError:
                self._stats.unread += 1  # the server is down, which is the fault and not the pipeline's
                continue
            self._stats.reads += 1
            if content not in {f"v{version}" for version in allowed | self.allowed}:
                self._stats.torn_reads.append(content)
            self._ended.wait(READER_PAUSE)

    def _read(self) -> dict[Any, list[int]]:
        """The form id of every live document, by form name, at one instant."""
        pipeline: list[dict[str, Any]] = [
            {"$match": {"region": "eu", "period": MONTH.name}},
            {"$group": {"_id": "$form_name", "form_ids": {"$push": {"$ifNull": ["$form_id", 0]}}}},
        ]
        collection = self._client[LIVE_DATABASE][SUBMISSIONS.name]
        with self._client.start_session(snapshot=True) as session:
            groups = list(collection.aggregate(pipeline, session=session, hint=READER_INDEX))
        return {group["_id"]: group["form_ids"] for group in groups}

    def end(self) -> None:
        self._ended.set()
        self.join()
