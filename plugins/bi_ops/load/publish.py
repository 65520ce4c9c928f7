"""Publishes a staged slice: replaces the live slice in transactions, so that readers see the old or the new slice.

Two DAG runs may publish the same slice at the same time. Each first writes its fencing token into the slice's lock
document in the staging database, and each transaction requires its token and updates that document. So the later
publish takes the lock over, and the earlier one stops before it can mix in its own documents.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from itertools import chain

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from bi_ops.catalog.slices import IdRange, Slice
from bi_ops.errors import BiError, PartialPublishError, StagingError, SupersededError
from bi_ops.load.background_worker import BackgroundWorker
from bi_ops.load.guards import LiveTotals, check_not_stale, check_shrink
from bi_ops.load.ledger import LedgerEntry
from bi_ops.load.staged_loads import Load, LoadStates, StagedLoad, clear_group_hint
from bi_ops.load.staging_buckets import BATCH_BYTES, BucketInfo, StagingBuckets, staging_mismatch
from bi_ops.mongo.mongo_error_rules import translate
from bi_ops.mongo.raw_bson import append_load_metadata, encode_load_metadata, equal_ignoring_load_metadata, get_id
from bi_ops.mongo.store import BATCH_SIZE, Store, iter_document_batches
from bi_ops.mongo.transactions import TransactionTooLargeError, in_transaction

MAX_TRANSACTION_DOCUMENTS = 100_000
"""The largest slice that one transaction replaces; it takes far less than MongoDB's limit of 60 seconds."""
MAX_TRANSACTION_BYTES = 256 * 2**20
"""The same limit in bytes, which only unusually large documents reach."""

log = logging.getLogger(__name__)

WriteOperation = ReplaceOne[RawBSONDocument] | DeleteOne


@dataclass(frozen=True)
class PublishResult:
    """The result of a publish.

    Attributes:
        documents: The number of documents in the slice.
        previous_documents: The number before the publish.
        written: The number of documents inserted, replaced or deleted; the others were unchanged.
    """

    documents: int
    previous_documents: int
    written: int


@dataclass(frozen=True)
class _Progress:
    """The progress of a publish.

    Attributes:
        read: The number of staged documents read.
        written: The number of live documents inserted, replaced or deleted.
        next: The `_id` at which to continue; empty once complete.
        transactions: The number of committed transactions.
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
    max_transaction_documents: int = MAX_TRANSACTION_DOCUMENTS,
) -> PublishResult:
    """Replace the live slice with the staged one.

    Args:
        store: The databases.
        load: The load to publish.
        max_shrink: The share of the slice that may disappear without `force`, 0 to 1.
        started_at: When the DAG run began to load it; by default when its plan began.
        force: Allow the slice to shrink by any amount, and an older load to replace a newer one.
        dry_run: Run all checks without changing anything.
        max_transaction_documents: The largest slice that one transaction replaces; a larger one is replaced in `_id`
            ranges.

    Raises:
        StagingError: A stage task has not completed, or the staged data does not match the completions.
        StaleLoadError: A later as-of, or a later reading of MEG, is already live.
        ShrinkError: The slice would shrink by more than `max_shrink`, or to nothing.
        SupersededError: Another run took over the slice's lock.
        PartialPublishError: The publish stopped between two transactions.
    """
    return _Publish(store, load, started_at or load.started_at, max_transaction_documents).run(
        max_shrink, force=force, dry_run=dry_run
    )


def measure_live(store: Store, slice_: Slice) -> LiveTotals:
    """The size of the live slice."""
    total = {"documents": {"$sum": 1}, "measure": {"$sum": f"${slice_.job.measure}"}}
    pipeline = [{"$match": slice_.id_range.filter}, {"$group": {"_id": None, **total}}]
    for row in store.live[slice_.job.name].aggregate(pipeline):
        return LiveTotals(row["documents"], row["measure"])
    return LiveTotals(0, 0)


class _Publish:
    def __init__(self, store: Store, load: Load, started_at: datetime, max_transaction_documents: int) -> None:
        self._store = store
        self._slice = load.slice
        self._load = load
        self._started_at = started_at
        self._max_transaction_documents = max_transaction_documents
        self._staging = StagingBuckets(store, load)
        self._collection = store.live_collection(load.slice.job.name)

    def run(self, max_shrink: float, *, force: bool, dry_run: bool) -> PublishResult:
        self._store.check_live_collections(self._slice.job.name)
        self._token = None if dry_run else self._acquire_lock()
        self._staged, self._buckets = self._check_complete()
        log.info("%s: MEG was read at %s", self._slice, self._staged.read_at.isoformat())
        if not force:
            check_not_stale(self._store, self._staged)
        self._live_before = measure_live(self._store, self._slice)
        if not force:
            check_shrink(self._staged, self._live_before, max_shrink)
        if dry_run:
            return PublishResult(self._staged.documents, self._live_before.documents, 0)
        self._store.ensure_live_collections(self._slice.job.name)
        progress = self._replace(forced=force)
        return PublishResult(self._staged.documents, self._live_before.documents, progress.written)

    def _check_complete(self) -> tuple[StagedLoad, list[BucketInfo]]:
        """The load and its buckets, verified to be complete."""
        try:
            staged = LoadStates(self._store).staged(self._load)
            return staged, self._staging.list_buckets(staged)
        except StagingError as error:
            row = self._store.ledger.find_one({"_id": self._slice.ledger_id}, {"publishing": 1}) or {}
            if not (progress := row.get("publishing")):
                raise
            raise StagingError(
                "an earlier publish stopped between two transactions, and the staged data is incomplete",
                context=error.context,
                expected=error.expected,
                actual=f"live: {progress['documents']} of {progress['of']} documents of run {progress['run_id']}, and "
                f"the rest of the previous load; staged: {error.actual}",
                hint=clear_group_hint(self._slice.task_group),
            ) from None

    def _replace(self, *, forced: bool) -> _Progress:
        """Replace the slice, in as many transactions as necessary."""
        published_at = datetime.now(timezone.utc)
        self._load_metadata = encode_load_metadata(published_at, self._load.run.run_id)
        self._ledger = LedgerEntry(
            self._staged, self._started_at, published_at, self._live_before.documents, forced=forced
        )
        progress = _Progress(0, 0, self._slice.id_range.start)
        max_documents = min(
            self._max_transaction_documents, max(1, self._staged.documents, self._live_before.documents)
        )
        while progress.next:
            try:
                progress = in_transaction(self._store, partial(self._replace_range, progress, max_documents))
            except TransactionTooLargeError as error:
                if max_documents == 1:
                    raise (self._partial(progress, error.cause) if progress.transactions else error.cause) from None
                max_documents = -(-max_documents // 2)
                log.warning(
                    "%s: a transaction of %d documents is too large for MongoDB; halving it",
                    self._slice,
                    max_documents * 2,
                )
            except Exception as error:
                if progress.transactions:
                    raise self._partial(progress, error) from error
                raise
        return progress

    def _replace_range(self, progress: _Progress, max_documents: int, session: ClientSession) -> _Progress:
        """One transaction: replace up to `max_documents` documents from `progress.next` on, and write the ledger."""
        self._assert_lock_held(session)
        ids, batch = IdRange(progress.next, self._slice.id_range.end), min(BATCH_SIZE, max_documents)
        live_documents = iter_document_batches(self._collection, ids, session, batch)
        staged = self._staging.iter_documents(self._buckets, ids.start, batch)
        part = _write_differences(
            self._collection, staged, live_documents, self._load_metadata, session, max_documents=max_documents
        )
        part = _Progress(
            progress.read + part.read, progress.written + part.written, part.next, progress.transactions + 1
        )
        if part.next:
            self._ledger.write_progress(self._store, part.read, session)
        else:
            if part.read != self._staged.documents:
                raise staging_mismatch(self._load, f"{self._staged.documents} documents", f"{part.read}")
            self._ledger.write(self._store, part.transactions, session)
        return part

    def _partial(self, progress: _Progress, error: Exception) -> PartialPublishError:
        if isinstance(error, PyMongoError):
            error = translate(error, str(self._slice))
        cause = f"{error.message}: {error.actual}" if isinstance(error, BiError) else type(error).__name__
        return PartialPublishError(
            "the publish stopped between two transactions, so the slice is partly new and partly old",
            context=str(self._slice),
            expected=f"all {self._staged.documents} documents of this load",
            actual=f"before _id {progress.next}: {progress.read} documents of this load; from it on: the previous "
            f"load. Cause: {cause}",
            hint="Retried automatically. If it persists, clear the task group "
            f"{self._slice.task_group} of this run; until then the ledger shows the slice as publishing.",
        )

    def _acquire_lock(self) -> ObjectId:
        token = ObjectId()
        row = {"token": token, "run_id": self._load.run.run_id, "load_id": self._load.id, "transactions": 0}
        self._store.publish_locks.replace_one({"_id": self._slice.ledger_id}, row, upsert=True)
        return token

    def _assert_lock_held(self, session: ClientSession) -> None:
        result = self._store.publish_locks.update_one(
            {"_id": self._slice.ledger_id, "token": self._token}, {"$inc": {"transactions": 1}}, session=session
        )
        if result.matched_count == 0:
            raise SupersededError(
                "another run started to publish this slice, so this one stopped",
                context=str(self._slice),
                expected="one publish of a slice at a time",
                actual="the lock of another run",
                hint="Retried automatically. If it persists, let only one run load this slice; the publish that ends "
                "last is complete.",
            )


def _write_differences(
    live: Collection[RawBSONDocument],
    staged: Iterator[list[bytes]],
    live_documents: Iterator[list[bytes]],
    load_metadata: bytes,
    session: ClientSession,
    *,
    max_documents: int,
) -> _Progress:
    """Turn the live documents into the staged ones, until `max_documents` of either have been read."""
    read = live_count = size = 0
    next_id = b""
    with BackgroundWorker() as in_session, BackgroundWorker() as in_staging:
        writer = _Writer(live, session, in_session)
        pairs = merge_join(
            chain.from_iterable(in_staging.prefetch(staged)), chain.from_iterable(in_session.prefetch(live_documents))
        )
        for new, old in pairs:
            size += len(new)
            if (
                (new and read == max_documents)
                or (old and live_count == max_documents)
                or (read and size > MAX_TRANSACTION_BYTES)
            ):
                next_id = get_id(new or old)
                break
            read += bool(new)
            live_count += bool(old)
            if not new:
                writer.delete(old)
            elif not old:
                writer.insert(append_load_metadata(new, load_metadata))
            elif not equal_ignoring_load_metadata(old, new):
                writer.replace(append_load_metadata(new, load_metadata))
        writer.flush()
    return _Progress(read, writer.written, next_id.decode())


def merge_join(left: Iterator[bytes], right: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Pair the documents of one `_id`; a document that only one side has is paired with b"".

    Args:
        left: Encoded documents, sorted by `_id`, each `_id` once.
        right: Likewise.
    """
    left_document, right_document = next(left, b""), next(right, b"")
    while left_document and right_document:
        left_id, right_id = get_id(left_document), get_id(right_document)
        if left_id < right_id:
            yield left_document, b""
            left_document = next(left, b"")
        elif left_id > right_id:
            yield b"", right_document
            right_document = next(right, b"")
        else:
            yield left_document, right_document
            left_document, right_document = next(left, b""), next(right, b"")
    while left_document:
        yield left_document, b""
        left_document = next(left, b"")
    while right_document:
        yield b"", right_document
        right_document = next(right, b"")


class _Writer:
    """Writes documents to a live collection, some thousands at a time, while the next are compared.

    Attributes:
        written: How many documents it was given.
    """

    def __init__(self, live: Collection[RawBSONDocument], session: ClientSession, worker: BackgroundWorker) -> None:
        self._live = live
        self._session = session
        self._worker = worker
        self._new: list[RawBSONDocument] = []
        self._changes: list[WriteOperation] = []
        self._bytes = 0
        self.written = 0

    def insert(self, document: bytes) -> None:
        self._new.append(RawBSONDocument(document))
        self._count(len(document))

    def replace(self, document: bytes) -> None:
        self._changes.append(ReplaceOne({"_id": get_id(document).decode()}, RawBSONDocument(document)))
        self._count(len(document))

    def delete(self, document: bytes) -> None:
        self._changes.append(DeleteOne({"_id": get_id(document).decode()}))
        self._count(0)

    def _count(self, size: int) -> None:
        self.written += 1
        self._bytes += size
        if len(self._new) + len(self._changes) == BATCH_SIZE or self._bytes > BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written yet."""
        if self._new:
            self._worker.submit(self._live.insert_many, self._new, ordered=False, session=self._session)
        if self._changes:
            self._worker.submit(self._live.bulk_write, self._changes, ordered=False, session=self._session)
        self._new, self._changes, self._bytes = [], [], 0
