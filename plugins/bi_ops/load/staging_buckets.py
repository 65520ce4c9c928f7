"""Writes and reads the buckets of the staging database: the documents that loads have read and not yet published.

A bucket is one MongoDB document that holds up to a thousand of a load's, since it costs MongoDB little more than a
single one. A stage task sorts its documents by `_id`, a few megabytes at a time, and writes each of these sorted runs
as buckets. Publish merges the sorted runs, and so reads the documents in `_id` order, whatever MEG's order was.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby, pairwise
from typing import Any

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from bi_ops.catalog.slices import IdRange, Slice
from bi_ops.errors import DuplicateKeyError, StagingError
from bi_ops.load.background_worker import BackgroundWorker
from bi_ops.load.staged_loads import Load, StagedLoad, clear_group_hint
from bi_ops.mongo.raw_bson import MAX_BUCKET_DOCUMENTS, decode_bucket, encode_bucket, get_id
from bi_ops.mongo.store import Store, find_raw_batches

SORT_BUFFER_BYTES = 4 * 2**20
"""The size of a sorted run; to sort and write it takes far less than 50 MB of memory."""
MAX_BUCKET_BYTES = 2**18
"""The maximum size of a bucket; publish holds one bucket of each sorted run in memory."""
BATCH_BYTES = 4 * 2**20
"""The maximum size of a batch for MongoDB's driver."""


@dataclass(frozen=True)
class BucketInfo:
    """A bucket without its documents.

    Attributes:
        id: Its `_id`: `<load>|<task>|<attempt>|<sorted run>|<bucket>`, which sorts a run's buckets in order.
        max_document_id: The greatest `_id` in it.
        documents: The number of documents in it.
    """

    id: str
    max_document_id: bytes
    documents: int

    @property
    def sort_run_id(self) -> str:
        """The sorted run that it belongs to."""
        return self.id.rpartition("|")[0]


class StagingBuckets:
    """The buckets of one load in the staging database.

    Args:
        store: The databases.
        load: The load.
    """

    def __init__(self, store: Store, load: Load) -> None:
        self._collection = store.staging_collection(load.slice.job.name)
        self._load = load
        self._slice = load.slice
        self._prefix = f"{load.id}|"

    @contextmanager
    def writer(self, task: int, attempt_id: ObjectId) -> Iterator[StagingWriter]:
        """Open a writer for one attempt of a stage task, which replaces the data of earlier attempts.

        All documents are staged when the block ends.

        Args:
            task: The number of the task in the load's plan.
            attempt_id: The attempt. Publish ignores what a superseded attempt still writes.
        """
        prefix = f"{self._prefix}{task:06}|"
        self._collection.delete_many(IdRange.with_prefix(prefix).filter)
        with BackgroundWorker() as worker:
            writer = StagingWriter(self._collection, self._slice, f"{prefix}{attempt_id}|", worker)
            yield writer
            writer.flush()

    def list_buckets(self, staged: StagedLoad) -> list[BucketInfo]:
        """The buckets of the completed attempts, ordered by task, sorted run and bucket.

        Raises:
            StagingError: They do not match the completions.
        """
        cursor = self._collection.find(
            IdRange.with_prefix(self._prefix).filter, {"max_id": 1, "document_count": 1}, sort=[("_id", 1)]
        )
        buckets = []
        documents = dict.fromkeys(staged.completions, 0)
        for bucket in cursor:
            _, task, attempt_id, _, _ = bucket["_id"].split("|")
            completion = staged.completions.get(int(task))
            if completion is not None and str(completion.attempt_id) == attempt_id:
                buckets.append(BucketInfo(bucket["_id"], bucket["max_id"].encode(), bucket["document_count"]))
                documents[int(task)] += bucket["document_count"]
        for task_number, completion in staged.completions.items():
            if documents[task_number] != completion.documents:
                raise staging_mismatch(
                    self._load, f"{completion.documents} documents of stage[{task_number}]", f"{documents[task_number]}"
                )
        return buckets

    def iter_documents(self, buckets: Iterable[BucketInfo], start_id: str, max_documents: int) -> Iterator[list[bytes]]:
        """Iterate in batches over the documents whose `_id` is `start_id` or greater, sorted by `_id`.

        A batch has at most `max_documents` documents, and `BATCH_BYTES` unless a single document is larger.

        Args:
            buckets: All buckets of the load, as `list_buckets` returns them.
            start_id: The `_id` at which to begin, as in the live collection.
            max_documents: The maximum number of documents in a batch.

        Raises:
            StagingError: A bucket has been deleted meanwhile.
            DuplicateKeyError: Two documents have the same `_id`.
        """
        start_key = start_id.encode()
        left = (bucket for bucket in buckets if bucket.max_document_id >= start_key)
        runs = [
            self._iter_sort_run([*of_run], start_key)
            for _, of_run in groupby(left, key=lambda bucket: bucket.sort_run_id)
        ]
        last: list[bytes] = []
        for batch in bounded(heapq.merge(*runs, key=get_id), max_documents):
            _check_duplicates(self._slice, [*last, *batch])
            last = batch[-1:]
            yield batch

    def _iter_sort_run(self, buckets: Iterable[BucketInfo], start_key: bytes) -> Iterator[bytes]:
        for bucket in buckets:
            documents = self._read(bucket)
            yield from documents[bisect_left(documents, start_key, key=get_id) :]

    def _read(self, bucket: BucketInfo) -> list[bytes]:
        for encoded in find_raw_batches(self._collection, {"_id": bucket.id}):
            return decode_bucket(encoded)
        raise staging_mismatch(self._load, f"{bucket.documents} documents in {bucket.id}", "none")


class StagingWriter:
    """Writes the documents of one attempt of a stage task.

    Args:
        collection: The staging collection.
        slice_: The slice.
        prefix: The start of the `_id` of each of its buckets.
        worker: The thread that writes the buckets.
    """

    def __init__(self, collection: Collection[Any], slice_: Slice, prefix: str, worker: BackgroundWorker) -> None:
        self._collection = collection
        self._slice = slice_
        self._prefix = prefix
        self._worker = worker
        self._documents: list[bytes] = []
        self._bytes = self._runs = 0

    def write(self, documents: Sequence[bytes]) -> None:
        """Stage encoded documents.

        Raises:
            DuplicateKeyError: Two documents have the same `_id`.
        """
        for batch in bounded(documents, len(documents)):
            self._documents += batch
            self._bytes += sum(map(len, batch))
            if self._bytes >= SORT_BUFFER_BYTES:
                self._flush_sorted_run()

    def flush(self) -> None:
        """Write the documents that are still in memory."""
        if self._documents:
            self._flush_sorted_run()

    def _flush_sorted_run(self) -> None:
        self._documents.sort(key=get_id)
        _check_duplicates(self._slice, self._documents)
        in_buckets = bounded(self._documents, MAX_BUCKET_DOCUMENTS, MAX_BUCKET_BYTES)
        buckets = [RawBSONDocument(self._encode_bucket(number, bucket)) for number, bucket in enumerate(in_buckets)]
        self._worker.submit(self._collection.insert_many, buckets)
        self._runs += 1
        self._documents, self._bytes = [], 0

    def _encode_bucket(self, number: int, documents: Sequence[bytes]) -> bytes:
        fields = {
            "_id": f"{self._prefix}{self._runs:06}|{number:06}",
            "staged_at": datetime.now(timezone.utc),
            "max_id": get_id(documents[-1]).decode(),
            "document_count": len(documents),
        }
        return encode_bucket(fields, documents)


def bounded(documents: Iterable[bytes], max_documents: int, max_bytes: int = BATCH_BYTES) -> Iterator[list[bytes]]:
    """The documents in batches of `max_documents`, and of `max_bytes` unless a single one is larger."""
    batch: list[bytes] = []
    size = 0
    for document in documents:
        if batch and (len(batch) == max_documents or size + len(document) > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document)
    if batch:
        yield batch


def _check_duplicates(slice_: Slice, documents: Sequence[bytes]) -> None:
    """Check that no two of the sorted documents have the same `_id`."""
    duplicates = [id_ for id_, next_id in pairwise(map(get_id, documents)) if id_ == next_id]
    if not duplicates:
        return
    raise DuplicateKeyError(
        "duplicate key in the query result",
        context=str(slice_),
        expected=f"one row for each {', '.join(slice_.job.key_fields)}",
        actual=f"{len(duplicates)} duplicates, such as _id {duplicates[0].decode()}",
        hint=f"Correct include/sql/{slice_.job.name}.sql so that it returns one row for each key.",
    )


def staging_mismatch(load: Load, expected: str, actual: str) -> StagingError:
    """The error for staged data that does not match the stage tasks' completions."""
    return StagingError(
        "staged document count mismatch, so nothing was published",
        context=str(load.slice),
        expected=expected,
        actual=f"{actual}; staged data is kept for 30 days",
        hint=clear_group_hint(load.slice.task_group),
    )
