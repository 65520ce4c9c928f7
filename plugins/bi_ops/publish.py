"""Publish: make a staged slice the live one, so that a reader sees the old slice or the new one and nothing between.

Two DAG runs may publish one slice at the same moment. Each first writes its token into the slice's document in the
staging database, and every transaction requires and touches that document: so the later publish takes the slice over,
and the earlier one stops before it can mix in what is its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from fractions import Fraction
from functools import partial
from typing import Any

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from bi_ops.documents import SCHEMA_VERSION, id_of, load_stamps, says_the_same, stamped
from bi_ops.errors import NewerSliceLiveError, ShrinkError, StagingError, SupersededError
from bi_ops.jobs import Mode
from bi_ops.slices import IdRange, Slice
from bi_ops.store import BATCH, Run, StagedSlice, Store, ids_every

TRANSACTION_DOCUMENTS = 100_000
"""The largest slice that is replaced in one transaction; it stays far inside MongoDB's 60 seconds for one."""


_END = ("\U0010ffff", b"")
"""Stands behind every `_id` in the order of strings."""

Write = InsertOne[RawBSONDocument] | ReplaceOne[RawBSONDocument] | DeleteOne


@dataclass(frozen=True)
class Published:
    """What a publish did.

    Attributes:
        documents: Documents that the slice now holds.
        previous_documents: Documents that it held before.
        written: Documents that were inserted, replaced or deleted; the others were already right.
    """

    documents: int
    previous_documents: int
    written: int


@dataclass(frozen=True)
class Load:
    """One run's load of one slice, ready to be published.

    Attributes:
        slice: What it replaces.
        run: The DAG run that staged it.
        documents: How many documents the stage tasks reported.
        chunks: In how many chunks they were read.
        started_at: When the load began.
    """

    slice: Slice
    run: Run
    documents: int
    chunks: int
    started_at: datetime


def publish(
    store: Store,
    load: Load,
    *,
    max_shrink: float,
    force: bool = False,
    dry_run: bool = False,
    transaction_documents: int = TRANSACTION_DOCUMENTS,
) -> Published:
    """Make a staged slice the live one.

    Args:
        store: Where it is staged and goes.
        load: What to publish.
        max_shrink: The share of the slice that may vanish without `force`, 0 to 1.
        force: Let the slice shrink by any amount.
        dry_run: Check everything, then change nothing.
        transaction_documents: The largest slice that is replaced at once; a larger one in `_id` ranges of this size.

    Raises:
        StagingError: What is staged is not what the stage tasks reported.
        NewerSliceLiveError: A later as-of is already live.
        ShrinkError: The slice would shrink by more than `max_shrink`, or to nothing.
        SupersededError: Another run took the slice over meanwhile.
    """
    staged = store.staged(load.slice, load.run)
    live = store.live_raw(load.slice.job.name)
    token = None if dry_run else _take_over(store, load)
    parts = _parts(staged, live, load, transaction_documents)
    _check_newest(store, load)
    previous = live.count_documents(load.slice.ids.filter)
    if not force:
        _check_shrink(load, previous, max_shrink)
    if dry_run:
        return Published(load.documents, previous, 0)

    store.prepare_live(load.slice.job.name)
    loaded_at = datetime.now(timezone.utc)
    stamps = load_stamps(loaded_at, load.run.run_id)
    ledger_row = _ledger_row(load, previous, forced=force, published_at=loaded_at)

    def replace(ids: IdRange, documents: int, session: ClientSession) -> int:
        _keep_hold(store, load, token, session)
        read, written = _write_differences(live, staged, ids, stamps, session)
        _check_staged(read, documents, load)  # it may have expired, or been cleared, since it was counted
        if ids is parts[-1][0]:
            store.ledger.replace_one({"_id": ledger_row["_id"]}, ledger_row, upsert=True, session=session)
        return written

    return Published(load.documents, previous, sum(_in_transaction(store, partial(replace, *part)) for part in parts))


def _in_transaction(store: Store, write: Callable[[ClientSession], int]) -> int:
    with store.client.start_session() as session:
        written: int = session.with_transaction(
            write, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
        )
    return written


def _take_over(store: Store, load: Load) -> ObjectId:
    token = ObjectId()
    store.publishers.replace_one(
        {"_id": load.slice.ledger_id}, {"token": token, "run_id": load.run.run_id, "transactions": 0}, upsert=True
    )
    return token


def _keep_hold(store: Store, load: Load, token: ObjectId | None, session: ClientSession) -> None:
    held = store.publishers.update_one(
        {"_id": load.slice.ledger_id, "token": token}, {"$inc": {"transactions": 1}}, session=session
    )
    if held.matched_count == 0:
        raise SupersededError(
            "another run began to publish this slice, so this one stopped",
            where=str(load.slice),
            expected="one publish of a slice at a time",
            found="another run's token on it",
            cure="Nothing is lost; whichever of the two publishes last is whole. Clear this task to make it this one.",
        )


def _check_staged(found: int, expected: int, load: Load) -> None:
    if found != expected:
        raise StagingError(
            "what is staged is not what the stage tasks reported, so the live slice was left as it was",
            where=str(load.slice),
            expected=f"{expected} documents of run {load.run.run_id}",
            found=f"{found}; what is staged is kept for 30 days",
            cure=f"Clear the task group {load.slice.task_group} of this run to stage it again.",
        )


def _check_newest(store: Store, load: Load) -> None:
    if load.slice.job.mode is Mode.APPEND:
        return  # a period has no older and newer: whoever loads it last knows best
    row = store.ledger.find_one({"_id": load.slice.ledger_id}, {"as_of": 1, "run_id": 1})
    if row is not None and row["as_of"] > load.slice.as_of:
        raise NewerSliceLiveError(
            "a newer snapshot is already live, so this older one was not published",
            where=str(load.slice),
            expected=f"nothing later than {load.slice.as_of.isoformat()}",
            found=f"{row['as_of'].isoformat()} from run {row['run_id']}",
            cure="Nothing needs doing.",
        )


def _check_shrink(load: Load, previous: int, max_shrink: float) -> None:
    least = max(1, math.ceil(previous * (1 - Fraction(str(max_shrink)))))  # exact: 70 % of 10 are 7
    if previous and load.documents < least:
        raise ShrinkError(
            "the slice would shrink so much that the source is more likely broken; the live slice was left as it was",
            where=str(load.slice),
            expected=f"at least {least} of the {previous} documents that are live",
            found=str(load.documents),
            cure="Look at MEG first. If the fall is real, trigger the run again with force, or raise BI_MAX_SHRINK.",
        )


def _parts(staged: StagedSlice, live: Collection[Any], load: Load, size: int) -> list[tuple[IdRange, int]]:
    """The slice cut so that no part has more than `size` documents, staged or live; each with how many are staged."""
    cuts = sorted({*staged.ids_every(size), *ids_every(live, load.slice.ids, size)})
    parts = [(ids, staged.count(ids)) for ids in load.slice.ids.split(cuts)]
    _check_staged(sum(documents for _, documents in parts), load.documents, load)
    return parts


def _write_differences(
    live: Collection[RawBSONDocument], staged: StagedSlice, ids: IdRange, stamps: bytes, session: ClientSession
) -> tuple[int, int]:
    """Turn the live range into the staged one; returns how many documents were staged, and how many were written."""
    read = written = 0
    batch: list[Write] = []
    for new, old in _side_by_side(live, staged, ids, session):
        read += new is not None
        if new is None and old is not None:
            batch.append(DeleteOne({"_id": id_of(old)}))
        elif new is not None and old is None:
            batch.append(InsertOne(RawBSONDocument(stamped(new, stamps))))
        elif new is not None and old is not None and not says_the_same(old, new):
            batch.append(ReplaceOne({"_id": id_of(new)}, RawBSONDocument(stamped(new, stamps))))
        if len(batch) == BATCH:
            live.bulk_write(batch, ordered=False, session=session)
            written, batch = written + len(batch), []
    if batch:
        live.bulk_write(batch, ordered=False, session=session)
    return read, written + len(batch)


def _side_by_side(
    live: Collection[RawBSONDocument], staged: StagedSlice, ids: IdRange, session: ClientSession
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Each `_id`'s staged and live document, encoded, None where there is none: two sorted streams, merged."""
    cursor = live.find(ids.filter, sort=[("_id", 1)], batch_size=BATCH, session=session)
    news = ((id_of(raw), raw) for raw in staged.documents(ids))
    olds = ((id_of(raw), raw) for raw in (bytes(document.raw) for document in cursor))
    new, old = next(news, _END), next(olds, _END)
    while new is not _END or old is not _END:
        if new[0] < old[0]:
            yield new[1], None
            new = next(news, _END)
        elif old[0] < new[0]:
            yield None, old[1]
            old = next(olds, _END)
        else:
            yield new[1], old[1]
            new, old = next(news, _END), next(olds, _END)


def _ledger_row(load: Load, previous: int, *, forced: bool, published_at: datetime) -> dict[str, Any]:
    period = load.slice.period
    return {
        "_id": load.slice.ledger_id,
        "job": load.slice.job.name,
        "region": load.slice.region,
        "period": period.name if period else None,
        "as_of": load.slice.as_of,
        "run_id": load.run.run_id,
        "dag_id": load.run.dag_id,
        "documents": load.documents,
        "previous_documents": previous,
        "chunks": load.chunks,
        "forced": forced,
        "started_at": load.started_at,
        "published_at": published_at,
        "loaded_at": published_at,
        "schema_version": SCHEMA_VERSION,
    }
