"""What is staged: the documents of a slice that a DAG run has read and not published, which no reader sees.

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
from itertools import chain, groupby, islice, pairwise
from typing import Any

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from bi_ops.behind import Behind
from bi_ops.encoded import MOST_PACKED, id_of, pack, unpacked
from bi_ops.errors import DuplicateKeyError, StagingError, SupersededError
from bi_ops.merge import windows
from bi_ops.slices import IdRange, Slice
from bi_ops.store import Run, Store, raw_batches

RUN_BYTES = 4 * 2**20
"""How much a stage task sorts at once: what it and MongoDB's driver hold of it stays far below 50 MB."""
PACK_BYTES = 2**18
"""A publish holds one pack of each run."""

_DUPLICATE_KEY = 11000


@dataclass(frozen=True)
class Pack:
    """A pack, without its documents.

    Attributes:
        name: Its `_id`: `dag|run|<the slice's prefix>|<task>|<run>|<pack>`, so that a run's packs stand in their order.
        written_by: Which try of its task wrote it.
        last: The greatest `_id` in it.
        documents: How many are in it.
    """

    name: str
    written_by: ObjectId
    last: bytes
    documents: int

    @property
    def run(self) -> str:
        """The sorted run that it is of."""
        return self.name.rpartition("|")[0]


class StagedSlice:
    """What one DAG run has staged of one slice.

    Args:
        store: Where.
        of: The slice.
        run: The DAG run.
    """

    def __init__(self, store: Store, of: Slice, run: Run) -> None:
        self._collection = store.staging(of.job.name)
        self._slice = of
        self._run = run
        self._prefix = f"{run.dag_id}|{run.run_id}|{of.prefix}|"

    def clear(self) -> None:
        """Remove all of it."""
        self._collection.delete_many(IdRange.with_prefix(self._prefix).filter)

    @contextmanager
    def task(self, number: int) -> Iterator[StagedTask]:
        """What one stage task stages of it, in place of what an earlier try left; all is staged when the block ends.

        Args:
            number: It tells the tasks apart.
        """
        prefix = f"{self._prefix}{number}|"
        self._collection.delete_many(IdRange.with_prefix(prefix).filter)
        with Behind() as behind:
            task = StagedTask(self._collection, self._slice, prefix, behind)
            yield task
            task.finish()

    def packs(self) -> list[Pack]:
        """All of it, by task, run and pack."""
        fields = {"try": 1, "last": 1, "count": 1}
        found = self._collection.find(IdRange.with_prefix(self._prefix).filter, fields, sort=[("_id", 1)])
        return [Pack(each["_id"], each["try"], each["last"].encode(), each["count"]) for each in found]

    def documents(self, packs: Iterable[Pack], first: str, most: int) -> Iterator[list[bytes]]:
        """The documents of these packs whose live `_id` is not before `first`, in batches, in the order of the `_id`s.

        Args:
            packs: All of the slice's, as `packs` gives them.
            first: Where to begin.
            most: How many there are in a batch; in the last there may be fewer.

        Raises:
            StagingError: A pack has gone meanwhile.
            DuplicateKeyError: Two documents have the same `_id`.
        """
        begin = first.encode()
        left = (each for each in packs if each.last >= begin)
        runs = [self._sorted([*of_run], begin) for _, of_run in groupby(left, key=lambda each: each.run)]
        documents = chain.from_iterable(self._merged(runs))
        while batch := [*islice(documents, most)]:
            yield batch

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
        which = {"_id": wanted.name, "try": wanted.written_by}
        for packed in raw_batches(self._collection, which):
            return unpacked(packed)
        raise not_as_reported(self._slice, self._run, f"{wanted.documents} documents in {wanted.name}", "none")


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
        self._try = ObjectId()
        self._documents: list[bytes] = []
        self._bytes = self._runs = 0

    def add(self, documents: Sequence[bytes]) -> None:
        """Stage encoded documents.

        Raises:
            DuplicateKeyError: Two documents have the same `_id`.
            SupersededError: Another try of the same task is staging too.
        """
        self._documents += documents
        self._bytes += sum(map(len, documents))
        if self._bytes >= RUN_BYTES:
            self._write_run()

    def finish(self) -> None:
        """Write what has not been written yet."""
        if self._documents:
            self._write_run()

    def _write_run(self) -> None:
        self._documents.sort(key=id_of)
        _refuse_doubled(self._slice, self._documents)
        packs = [RawBSONDocument(self._pack(number, each)) for number, each in enumerate(_in_packs(self._documents))]
        self._behind.do(self._write, packs)
        self._runs += 1
        self._documents, self._bytes = [], 0

    def _pack(self, number: int, documents: Sequence[bytes]) -> bytes:
        about = {
            "staged_at": datetime.now(timezone.utc),
            "try": self._try,
            "last": id_of(documents[-1]).decode(),
            "count": len(documents),
        }
        return pack(f"{self._prefix}{self._runs:06}|{number:06}", about, documents)

    def _write(self, packs: Sequence[RawBSONDocument]) -> None:
        try:
            self._collection.insert_many(packs)
        except BulkWriteError as error:
            if error.details["writeErrors"][0]["code"] != _DUPLICATE_KEY:
                raise
            raise SupersededError(
                "another try of this task is still staging",
                where=str(self._slice),
                expected="one try of a task at a time",
                found="its documents where this one's go",
                cure="Nothing if a retry heals it; else end the other process and clear this task.",
            ) from None


def _in_packs(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    packed: list[bytes] = []
    size = 0
    for document in documents:
        if packed and (len(packed) == MOST_PACKED or size + len(document) > PACK_BYTES):
            yield packed
            packed, size = [], 0
        packed.append(document)
        size += len(document)
    yield packed


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


def not_as_reported(of: Slice, run: Run, expected: str, found: str) -> StagingError:
    """That what is staged cannot be published."""
    return StagingError(
        "what is staged is not what the stage tasks reported, so the live slice was left as it was",
        where=str(of),
        expected=f"{expected} of run {run.run_id}",
        found=f"{found}; what is staged is kept for 30 days",
        cure=f"Clear the task group {of.task_group} of this run to stage it again.",
    )
