"""Records the failures that no retry resolves, so that `bi_backfill` does not repeat them every day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from bi_ops.catalog.slices import Slice
from bi_ops.errors import BiError
from bi_ops.mongo.store import DagRunRef, Store

_MESSAGE_FIELDS = ("message", "context", "expected", "actual", "hint")


def record_failure(store: Store, slice_: Slice, error: BiError, run: DagRunRef) -> None:
    """Record that the load of a slice failed; a later failure replaces it."""
    row = {
        "_id": slice_.ledger_id,
        **slice_.to_json(),
        **{name: getattr(error, name) for name in _MESSAGE_FIELDS},
        "failed_at": datetime.now(timezone.utc),
        "dag_id": run.dag_id,
        "run_id": run.run_id,
    }
    store.failures.replace_one({"_id": row["_id"]}, row, upsert=True)


def find_failures(store: Store, slices: Iterable[Slice]) -> dict[Slice, BiError]:
    """The failures of slices that have not been published since, by slice.

    Args:
        store: The databases.
        slices: Slices that are not published.
    """
    slices = list(slices)
    ids = sorted({slice_.ledger_id for slice_ in slices})
    rows = {row["_id"]: row for row in store.failures.find({"_id": {"$in": ids}})}
    published = {row["_id"]: row["published_at"] for row in store.ledger.find({"_id": {"$in": ids}})}
    failures = {}
    for slice_ in slices:
        row, published_at = rows.get(slice_.ledger_id), published.get(slice_.ledger_id)
        if row and not (published_at and published_at > row["failed_at"]):
            failures[slice_] = BiError(**{name: row[name] for name in _MESSAGE_FIELDS})
    return failures
