"""The ledger (collection `bi_loads`), a document per published slice: writes it, and finds what is missing in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pendulum
from pymongo.client_session import ClientSession

from bi_ops.catalog.slices import Slice
from bi_ops.load.staged_loads import StagedLoad
from bi_ops.mongo.store import Document, Store


def unpublished(store: Store, slices: Iterable[Slice], *, since: datetime | None = None) -> list[Slice]:
    """Those of the due slices that are not published, in their order.

    Args:
        store: The databases.
        slices: Due slices.
        since: What was published before this instant counts as not published.
    """
    slices = list(slices)
    ids = sorted({slice_.ledger_id for slice_ in slices})
    query: Document = {"_id": {"$in": ids}, **({"published_at": {"$gte": since}} if since else {})}
    rows = {row["_id"]: row for row in store.ledger.find(query)}
    return [slice_ for slice_ in slices if not is_published(slice_, rows.get(slice_.ledger_id))]


def is_published(slice_: Slice, row: Mapping[str, Any] | None) -> bool:
    """Whether a due slice, or a later one that replaces it, is published as a whole.

    Periods are compared by name, and instants by the clocks of their time zones: in another time zone the same period
    begins, and the same snapshot is due, at another instant.

    Args:
        slice_: The due slice; its `as_of` is in the settings' time zone.
        row: The ledger's row of its `ledger_id`; None if there is none.
    """
    if row is None or not row.get("published_at") or row.get("publishing"):
        return False
    if slice_.period:
        return bool((row.get("period") or "") >= slice_.period.name)  # a row written by hand may have none
    if not row.get("timezone"):  # published by an earlier version
        return bool(row["as_of"] >= slice_.as_of)
    local = pendulum.instance(row["as_of"]).in_timezone(row["timezone"])
    return bool(local.naive() >= pendulum.instance(slice_.as_of).naive())


@dataclass(frozen=True)
class LedgerEntry:
    """The entry that one publish writes into the ledger.

    Attributes:
        staged: The published load.
        started_at: When the DAG run began to load it.
        published_at: When the publish began to replace the live slice.
        previous_documents: The number of documents in the live slice before this publish.
        forced: Whether the guards were switched off, by the run's parameter `force`.
    """

    staged: StagedLoad
    started_at: datetime
    published_at: datetime
    previous_documents: int
    forced: bool

    def write(self, store: Store, transactions: int, session: ClientSession) -> None:
        """Record a complete publish, which took this number of transactions."""
        row = {**self._row(), "transactions": transactions, "publishing": None}
        store.ledger.replace_one({"_id": row["_id"]}, row, upsert=True, session=session)

    def write_progress(self, store: Store, documents: int, session: ClientSession) -> None:
        """Record a publish in progress: so far the live slice holds `documents` documents of this load."""
        row = self._row()
        progress = {
            "load_id": row["load_id"],
            "run_id": row["run_id"],
            "read_at": row["read_at"],
            "documents": documents,
            "of": row["documents"],
        }
        defaults = {**row, "documents": 0, "published_at": None, "transactions": 0}
        ledger_id = defaults.pop("_id")
        change = {"$set": {"publishing": progress}, "$setOnInsert": defaults}
        store.ledger.update_one({"_id": ledger_id}, change, upsert=True, session=session)

    def _row(self) -> Document:
        load = self.staged.load
        period = load.slice.period
        return {
            "_id": load.slice.ledger_id,
            "job": load.slice.job.name,
            "region": load.slice.region,
            "period": period.name if period else None,
            "as_of": load.slice.as_of,
            "run_id": load.run.run_id,
            "dag_id": load.run.dag_id,
            "load_id": load.id,
            "read_at": self.staged.read_at,
            "timezone": load.settings.timezone,
            "documents": self.staged.documents,
            "previous_documents": self.previous_documents,
            "chunks": self.staged.chunks,
            "forced": self.forced,
            "started_at": self.started_at,
            "published_at": self.published_at,
            "loaded_at": self.published_at,
            "schema_version": load.settings.schema_version,
        }
