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
from pymongo import DeleteOne, ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from bi_ops.behind import Behind
from bi_ops.documents import SCHEMA_VERSION
from bi_ops.encoded import id_of, load_stamps, says_the_same, stamped
from bi_ops.errors import NewerSliceLiveError, ShrinkError, SupersededError
from bi_ops.jobs import Mode
from bi_ops.merge import windows
from bi_ops.slices import IdRange, Slice
from bi_ops.staging import StagedSlice, not_as_reported
from bi_ops.store import BATCH, Run, Store, document_batches

TRANSACTION_DOCUMENTS = 100_000
"""The largest slice that is replaced in one transaction; it stays far inside MongoDB's 60 seconds for one."""


Change = ReplaceOne[RawBSONDocument] | DeleteOne


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
class _Part:
    """What of a slice has been replaced.

    Attributes:
        read: How many staged documents were met.
        written: How many live documents were written or deleted.
        next: The `_id` at which to go on; empty where all is done.
    """

    read: int
    written: int
    next: str


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
    staged = StagedSlice(store, load.slice, load.run)
    live = store.live_raw(load.slice.job.name)
    token = None if dry_run else _take_over(store, load)
    packs = staged.packs()
    _check_staged(sum(pack.documents for pack in packs), load)
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

    batch = min(BATCH, transaction_documents)

    def replace(done: _Part, session: ClientSession) -> _Part:
        _keep_hold(store, load, token, session)
        ids = IdRange(done.next, load.slice.ids.end)
        olds = document_batches(live, ids, session, batch)
        news = staged.documents(packs, ids.first, batch)
        part = _write_differences(live, news, olds, stamps, session, most=transaction_documents)
        part = _Part(done.read + part.read, done.written + part.written, part.next)
        if not part.next:
            _check_staged(part.read, load)
            store.ledger.replace_one({"_id": ledger_row["_id"]}, ledger_row, upsert=True, session=session)
        return part

    done = _Part(0, 0, load.slice.ids.first)
    while done.next:
        done = _in_transaction(store, partial(replace, done))
    return Published(load.documents, previous, done.written)


def _in_transaction(store: Store, write: Callable[[ClientSession], _Part]) -> _Part:
    with store.client.start_session() as session:
        part: _Part = session.with_transaction(
            write, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
        )
    return part


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


def _check_staged(found: int, load: Load) -> None:
    if found != load.documents:
        raise not_as_reported(load.slice, load.run, f"{load.documents} documents", f"{found}")


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


def _write_differences(
    live: Collection[RawBSONDocument],
    news: Iterator[list[bytes]],
    olds: Iterator[list[bytes]],
    stamps: bytes,
    session: ClientSession,
    *,
    most: int,
) -> _Part:
    """Turn the old documents into the new ones, until `most` were met of either; `news` is read beside the session."""
    read = met = written = 0
    with Behind() as in_session, Behind() as in_staging:
        for wanted, found in windows([in_staging.ahead(news), in_session.ahead(olds)]):
            if max(read + len(wanted), met + len(found)) > most:
                first = min(id_of(documents[0]) for documents in (wanted, found) if documents)
                return _Part(read, written, first.decode())
            read, met = read + len(wanted), met + len(found)
            new, changes = _differences(wanted, found, stamps)
            written += len(new) + len(changes)
            if new:
                in_session.do(live.insert_many, new, ordered=False, session=session)
            if changes:
                in_session.do(live.bulk_write, changes, ordered=False, session=session)
    return _Part(read, written, "")


def _differences(wanted: list[bytes], found: list[bytes], stamps: bytes) -> tuple[list[RawBSONDocument], list[Change]]:
    """What to insert, and what to replace or delete, so that what is found becomes what is wanted."""
    new: list[RawBSONDocument] = []
    changes: list[Change] = []
    left = {id_of(document): document for document in found}
    for document in wanted:
        name = id_of(document)
        old = left.pop(name, None)
        if old is None:
            new.append(RawBSONDocument(stamped(document, stamps)))
        elif not says_the_same(old, document):
            changes.append(ReplaceOne({"_id": name.decode()}, RawBSONDocument(stamped(document, stamps))))
    changes += [DeleteOne({"_id": name.decode()}) for name in left]
    return new, changes


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
