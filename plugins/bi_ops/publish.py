"""Publish: make a staged slice the live one, so that a reader sees the old slice or the new one and nothing between.

Two DAG runs may publish one slice at the same moment. Each first writes its token into the slice's document in the
staging database, and every transaction requires and touches that document: so the later publish takes the slice over,
and the earlier one stops before it can mix in what is its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from bi_ops.behind import Behind
from bi_ops.encoded import id_of, load_stamps, says_the_same, stamped
from bi_ops.errors import BiError, PartialPublishError, StagingError, SupersededError
from bi_ops.guards import LiveSlice, check_is_newest, check_shrink
from bi_ops.ledger import LedgerEntry
from bi_ops.loads import Load, LoadRegister, StagedLoad
from bi_ops.merge import windows
from bi_ops.slices import IdRange
from bi_ops.staging import Pack, StagedSlice, staging_mismatch
from bi_ops.store import BATCH, Store, document_batches
from bi_ops.store_errors import translate
from bi_ops.transactions import TransactionTooLargeError, in_transaction

TRANSACTION_DOCUMENTS = 100_000
"""The largest slice that is replaced in one transaction; it stays far inside MongoDB's 60 seconds for one."""
TRANSACTION_BYTES = 256 * 2**20
"""The same in bytes, which only a slice of unusually large documents reaches."""

log = logging.getLogger(__name__)

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
    """How far a slice has been replaced.

    Attributes:
        read: How many staged documents were met.
        written: How many live documents were written or deleted.
        next: The `_id` at which to go on; empty where all is done.
        transactions: In how many transactions.
    """

    read: int
    written: int
    next: str
    transactions: int = 0


def publish(
    store: Store,
    load: Load,
    *,
    max_shrink: float,
    started_at: datetime | None = None,
    force: bool = False,
    dry_run: bool = False,
    transaction_documents: int = TRANSACTION_DOCUMENTS,
) -> Published:
    """Make a staged slice the live one.

    Args:
        store: Where it is staged and goes.
        load: What to publish.
        max_shrink: The share of the slice that may vanish without `force`, 0 to 1.
        started_at: When the DAG run began to load it; by default when its plan began.
        force: Let the slice shrink by any amount, and an older one replace a newer one.
        dry_run: Check everything, then change nothing.
        transaction_documents: The largest slice that is replaced at once; a larger one in `_id` ranges of this size.

    Raises:
        StagingError: Not every stage task has completed, or the staged data is not what they completed with.
        NewerSliceLiveError: A later as-of, or a later reading of MEG, is already live.
        ShrinkError: The slice would shrink by more than `max_shrink`, or to nothing.
        SupersededError: Another run took the slice over meanwhile.
        PartialPublishError: It stopped between two transactions.
    """
    return _Publish(store, load, started_at or load.started_at, transaction_documents).run(
        max_shrink, force=force, dry_run=dry_run
    )


class _Publish:
    def __init__(self, store: Store, load: Load, started_at: datetime, transaction_documents: int) -> None:
        self._store = store
        self._slice = load.slice
        self._load = load
        self._started_at = started_at
        self._most = transaction_documents
        self._staging = StagedSlice(store, load)
        self._collection = store.live_raw(load.slice.job.name)

    def run(self, max_shrink: float, *, force: bool, dry_run: bool) -> Published:
        self._store.check_live(self._slice.job.name)
        self._token = None if dry_run else self._take_over()
        self._staged, self._packs = self._whole()
        if not force:
            check_is_newest(self._store, self._staged)
        self._before = self._measure_live()
        if not force:
            check_shrink(self._staged, self._before, max_shrink)
        if dry_run:
            return Published(self._staged.documents, self._before.documents, 0)
        self._store.prepare_live(self._slice.job.name)
        done = self._replace(forced=force)
        return Published(self._staged.documents, self._before.documents, done.written)

    def _whole(self) -> tuple[StagedLoad, list[Pack]]:
        """The load, proved to be whole."""
        try:
            staged = LoadRegister(self._store).staged(self._load)
            return staged, self._staging.packs(staged)
        except StagingError as error:
            row = self._store.ledger.find_one({"_id": self._slice.ledger_id}, {"publishing": 1}) or {}
            if not (progress := row.get("publishing")):
                raise
            raise StagingError(
                f"an earlier publish stopped between two transactions, so the slice is partly of run "
                f"{progress['run_id']}; it cannot be made whole, since the staged data is not",
                where=error.where,
                expected=error.expected,
                found=f"live: {progress['documents']} of {progress['of']} documents of that run, and the rest as "
                f"before; staged: {error.found}",
                cure=error.cure,
            ) from None

    def _measure_live(self) -> LiveSlice:
        total = {"documents": {"$sum": 1}, "measure": {"$sum": f"${self._slice.job.measure}"}}
        pipeline = [{"$match": self._slice.ids.filter}, {"$group": {"_id": None, **total}}]
        for row in self._store.live[self._slice.job.name].aggregate(pipeline):
            return LiveSlice(row["documents"], row["measure"])
        return LiveSlice(0, 0)

    def _replace(self, *, forced: bool) -> _Part:
        """Replace the slice, in as many transactions as it takes."""
        published_at = datetime.now(timezone.utc)
        self._stamps = load_stamps(published_at, self._load.run.run_id)
        self._ledger = LedgerEntry(self._staged, self._started_at, published_at, self._before.documents, forced=forced)
        done = _Part(0, 0, self._slice.ids.first)
        most = min(self._most, max(1, self._staged.documents, self._before.documents))
        while done.next:
            try:
                part = in_transaction(self._store, partial(self._replace_range, done, most))
            except TransactionTooLargeError as error:
                if most == 1:
                    raise (self._partial(done, error.cause) if done.transactions else error.cause) from None
                most = -(-most // 2)
                log.warning("%s: a transaction of %d documents is too large for MongoDB; halved", self._slice, most * 2)
                continue
            except Exception as error:
                if done.transactions:
                    raise self._partial(done, error) from error
                raise
            done = part
        return done

    def _replace_range(self, done: _Part, most: int, session: ClientSession) -> _Part:
        """One transaction: replace what stands from `done.next` on, `most` documents at most, and keep the ledger."""
        self._keep_hold(session)
        ids, batch = IdRange(done.next, self._slice.ids.end), min(BATCH, most)
        olds = document_batches(self._collection, ids, session, batch)
        news = self._staging.documents(self._packs, ids.first, batch)
        part = _write_differences(self._collection, news, olds, self._stamps, session, most=most)
        part = _Part(done.read + part.read, done.written + part.written, part.next, done.transactions + 1)
        if part.next:
            self._ledger.keep_progress(self._store, part.read, session)
        else:
            if part.read != self._staged.documents:
                raise staging_mismatch(self._load, f"{self._staged.documents} documents", f"{part.read}")
            self._ledger.keep(self._store, part.transactions, session)
        return part

    def _partial(self, done: _Part, error: Exception) -> PartialPublishError:
        if isinstance(error, PyMongoError):
            error = translate(error, str(self._slice))
        cause = f"{error.what}: {error.found}" if isinstance(error, BiError) else type(error).__name__
        return PartialPublishError(
            "the publish stopped between two transactions, so the slice is partly new and partly old",
            where=str(self._slice),
            expected=f"all {self._staged.documents} documents of this load",
            found=f"live up to _id {done.next}: {done.read} documents of this load; after it: the slice as it was. "
            f"The cause: {cause}",
            cure="Retried automatically until the slice is whole; the ledger says publishing until then. If it "
            f"persists, clear the task group {self._slice.task_group} of this run.",
        )

    def _take_over(self) -> ObjectId:
        token = ObjectId()
        row = {"token": token, "run_id": self._load.run.run_id, "load_id": self._load.id, "transactions": 0}
        self._store.publishers.replace_one({"_id": self._slice.ledger_id}, row, upsert=True)
        return token

    def _keep_hold(self, session: ClientSession) -> None:
        held = self._store.publishers.update_one(
            {"_id": self._slice.ledger_id, "token": self._token}, {"$inc": {"transactions": 1}}, session=session
        )
        if held.matched_count == 0:
            raise SupersededError(
                "another run began to publish this slice, so this one stopped",
                where=str(self._slice),
                expected="one publish of a slice at a time",
                found="another run's token on it",
                cure="Nothing is lost; whichever of the two publishes last is whole. Clear this task to make it this "
                "one.",
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
    read = met = written = size = 0
    with Behind() as in_session, Behind() as in_staging:
        for wanted, found in windows([in_staging.ahead(news), in_session.ahead(olds)]):
            size += sum(map(len, wanted))
            if max(read + len(wanted), met + len(found)) > most or (read and size > TRANSACTION_BYTES):
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
