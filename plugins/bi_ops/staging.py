"""What is staged: the documents that a load has read and not published, which no reader sees.

A stage task sorts what it reads by `_id`, a run of some megabytes at a time, and writes each run as packs: a pack of
many documents costs MongoDB little more than a document does. Publish merges the runs, so that it meets the documents
in the order of the live `_id`s, whatever the order in which MEG gave them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain, groupby, pairwise
from typing import Any

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from bi_ops.behind import Behind
from bi_ops.encoded import MOST_PACKED, id_of, pack, unpacked
from bi_ops.errors import DuplicateKeyError, StagingError
from bi_ops.loads import Load, StagedLoad, clear_group_hint
from bi_ops.merge import windows
from bi_ops.slices import IdRange, Slice
from bi_ops.store import Store, raw_batches

RUN_BYTES = 4 * 2**20
"""How much a stage task sorts at once: what it and MongoDB's driver hold of it stays far below 50 MB."""
PACK_BYTES = 2**18
"""A publish holds one pack of each run."""
BATCH_BYTES = 4 * 2**20
"""What is handed to MongoDB's driver at once."""


@dataclass(frozen=True)
class Pack:
    """A pack, without its documents.

    Attributes:
        name: Its `_id`: `<load>|<task>|<attempt>|<run>|<pack>`, so that a run's packs stand in their order.
        last: The greatest `_id` in it.
        documents: How many are in it.
    """

    name: str
    last: bytes
    documents: int

    @property
    def run(self) -> str:
        """The sorted run that it is of."""
        return self.name.rpartition("|")[0]


class StagedSlice:
    """What one load has staged.

    Args:
        store: Where.
        load: The load.
    """

    def __init__(self, store: Store, load: Load) -> None:
        self._collection = store.staging(load.slice.job.name)
        self._load = load
        self._slice = load.slice
        self._prefix = f"{load.id}|"

    @contextmanager
    def task(self, number: int, attempt_id: ObjectId) -> Iterator[StagedTask]:
        """What one attempt of a stage task stages, in place of earlier attempts'; all is staged when the block ends.

        Args:
            number: The number of the task in the load's plan.
            attempt_id: The attempt. One that was superseded and still writes leaves nothing that a publish reads.
        """
        prefix = f"{self._prefix}{number:06}|"
        self._collection.delete_many(IdRange.with_prefix(prefix).filter)
        with Behind() as behind:
            task = StagedTask(self._collection, self._slice, f"{prefix}{attempt_id}|", behind)
            yield task
            task.finish()

    def packs(self, staged: StagedLoad) -> list[Pack]:
        """What the completed attempts have written, by task, run and pack.

        Raises:
            StagingError: It is not what they completed with.
        """
        found = self._collection.find(
            IdRange.with_prefix(self._prefix).filter, {"last": 1, "count": 1}, sort=[("_id", 1)]
        )
        packs = []
        documents = dict.fromkeys(staged.completions, 0)
        for each in found:
            _, task, attempt_id, _, _ = each["_id"].split("|")
            completion = staged.completions.get(int(task))
            if completion is not None and str(completion.attempt_id) == attempt_id:
                packs.append(Pack(each["_id"], each["last"].encode(), each["count"]))
                documents[int(task)] += each["count"]
        for number, completion in staged.completions.items():
            if documents[number] != completion.documents:
                raise staging_mismatch(
                    self._load, f"{completion.documents} documents of stage[{number}]", f"{documents[number]}"
                )
        return packs

    def documents(self, packs: Iterable[Pack], first: str, most: int) -> Iterator[list[bytes]]:
        """The documents of these packs whose live `_id` is not before `first`, in batches, in the order of the `_id`s.

        A batch is of `BATCH_BYTES` at most, too.

        Args:
            packs: All of the slice's, as `packs` gives them.
            first: Where to begin.
            most: How many there are in a batch at most.

        Raises:
            StagingError: A pack has gone meanwhile.
            DuplicateKeyError: Two documents have the same `_id`.
        """
        begin = first.encode()
        left = (each for each in packs if each.last >= begin)
        runs = [self._sorted([*of_run], begin) for _, of_run in groupby(left, key=lambda each: each.run)]
        yield from bounded(chain.from_iterable(self._merged(runs)), most)

    def _merged(self, runs: Sequence[Iterator[list[bytes]]]) -> Iterator[list[bytes]]:
        for window in windows(runs):
            merged = sorted(chain.from_iterable(window), key=id_of)
            _refuse_doubled(self._slice, merged)
            yield merged

    def _sorted(self, packs: Sequence[Pack], begin: bytes) -> Iterator[list[bytes]]:
        for each in packs:
            found = self._read(each)
            yield found[bisect_left(found, begin, key=id_of) :]

    def _read(self, wanted: Pack) -> list[bytes]:
        for packed in raw_batches(self._collection, {"_id": wanted.name}):
            return unpacked(packed)
        raise staging_mismatch(self._load, f"{wanted.documents} documents in {wanted.name}", "none")


class StagedTask:
    """What one stage task stages.

    Args:
        collection: Where.
        of: The slice that it is of.
        prefix: What the `_id` of each of its packs begins with.
        behind: What writes.
    """

    def __init__(self, collection: Collection[Any], of: Slice, prefix: str, behind: Behind) -> None:
        self._collection = collection
        self._slice = of
        self._prefix = prefix
        self._behind = behind
        self._documents: list[bytes] = []
        self._bytes = self._runs = 0

    def add(self, documents: Sequence[bytes]) -> None:
        """Stage encoded documents.

        Raises:
            DuplicateKeyError: Two documents have the same `_id`.
        """
        for batch in bounded(documents, len(documents)):
            self._documents += batch
            self._bytes += sum(map(len, batch))
            if self._bytes >= RUN_BYTES:
                self._write_run()

    def finish(self) -> None:
        """Write what has not been written yet."""
        if self._documents:
            self._write_run()

    def _write_run(self) -> None:
        self._documents.sort(key=id_of)
        _refuse_doubled(self._slice, self._documents)
        in_packs = bounded(self._documents, MOST_PACKED, PACK_BYTES)
        packs = [RawBSONDocument(self._pack(number, each)) for number, each in enumerate(in_packs)]
        self._behind.do(self._collection.insert_many, packs)
        self._runs += 1
        self._documents, self._bytes = [], 0

    def _pack(self, number: int, documents: Sequence[bytes]) -> bytes:
        about = {
            "staged_at": datetime.now(timezone.utc),
            "last": id_of(documents[-1]).decode(),
            "count": len(documents),
        }
        return pack(f"{self._prefix}{self._runs:06}|{number:06}", about, documents)


def bounded(documents: Iterable[bytes], most: int, most_bytes: int = BATCH_BYTES) -> Iterator[list[bytes]]:
    """The documents in batches of `most`, and of `most_bytes` unless a single one is larger."""
    batch: list[bytes] = []
    size = 0
    for document in documents:
        if batch and (len(batch) == most or size + len(document) > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document)
    if batch:
        yield batch


def _refuse_doubled(of: Slice, documents: Sequence[bytes]) -> None:
    """Refuse two documents of one `_id`; they are sorted by it."""
    doubled = [name for name, after in pairwise(map(id_of, documents)) if name == after]
    if not doubled:
        return
    raise DuplicateKeyError(
        "two rows of MEG's would become the same document",
        where=str(of),
        expected=f"rows that differ in {', '.join(of.job.key_fields)}",
        found=f"{len(doubled)} doubled, such as _id {doubled[0].decode()}",
        cure=f"Mend include/sql/{of.job.name}.sql, so that a key gives one row.",
    )


def staging_mismatch(load: Load, expected: str, found: str) -> StagingError:
    """The staged data is not what the stage tasks completed with."""
    return StagingError(
        "the staged documents are not the ones that the stage tasks completed with, so nothing was published",
        where=str(load.slice),
        expected=expected,
        found=f"{found}; staged data is kept for 30 days",
        cure=clear_group_hint(load.slice.task_group),
    )
