"""The two MongoDB databases: the live one, which reports read, and the staging one, which only the pipeline sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from bi_ops.errors import DuplicateKeyError, SupersededError
from bi_ops.slices import IdRange, Slice

LEDGER = "bi_loads"
PUBLISHERS = "publishing"
STAGED_FOR = timedelta(days=30)
"""How long what is staged can still be published."""
BATCH = 2_000
"""Documents read or written at once: enough to hide the round trip, few enough that memory stays flat."""

_DUPLICATE_KEY = 11000
_NAMESPACE_EXISTS = 48
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument, tz_aware=True)

Document = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The DAG run that a load belongs to."""

    dag_id: str
    run_id: str


class Store:
    """The live and the staging database of one MongoDB connection.

    Everything is read from the primary and acknowledged by a majority, whatever the connection's own options say:
    what was staged must survive a change of primary, and a publish must not be judged by a stale copy.
    """

    def __init__(self, client: MongoClient[Document], database: str) -> None:
        self.client = client
        self.live = self._database(database)
        self._staging = self._database(f"{database}_staging")

    def _database(self, name: str) -> Database[Document]:
        return self.client.get_database(
            name,
            codec_options=CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority"),
            read_concern=ReadConcern("majority"),
        )

    @property
    def ledger(self) -> Collection[Document]:
        """One document for each published slice."""
        return self.live[LEDGER]

    @property
    def publishers(self) -> Collection[Document]:
        """One document for each slice, naming the publish that holds it."""
        return self._staging[PUBLISHERS]

    def live_raw(self, name: str) -> Collection[RawBSONDocument]:
        """A live collection whose documents stay encoded."""
        return self.live[name].with_options(codec_options=_RAW)

    def prepare_live(self, job_name: str) -> None:
        """Make the live collections where they are missing, with no index but `_id`'s."""
        existing = set(self.live.list_collection_names(filter={"name": {"$in": [job_name, LEDGER]}}))
        for name in {job_name, LEDGER} - existing:
            try:
                self.live.create_collection(name, check_exists=False)
            except OperationFailure as error:
                if error.code != _NAMESPACE_EXISTS:
                    raise  # it does where another region's load made it first

    def prepare_staging(self, job_name: str) -> None:
        """Make the staging collection where it is missing, with the index by which it forgets."""
        self._staging[job_name].create_index(
            "staged_at", name="staged_at_ttl", expireAfterSeconds=int(STAGED_FOR.total_seconds())
        )

    def staged(self, of: Slice, run: Run) -> StagedSlice:
        """What `run` has staged of a slice."""
        return StagedSlice(self._staging[of.job.name], of, run)


class StagedSlice:
    """What one DAG run has staged of one slice: a range of the `_id` index, in the order of the live `_id`s.

    A staged document is `{_id: "dag|run|<live _id>", staged_at, try, document}`; `document` is the live one without its
    load stamps, `try` tells the tries of one task apart.
    """

    def __init__(self, collection: Collection[Document], of: Slice, run: Run) -> None:
        self._collection = collection
        self._slice = of
        self._prefix = f"{run.dag_id}|{run.run_id}|"
        self._ids = self._range(of.ids)
        self._try = ObjectId()

    def _range(self, ids: IdRange) -> IdRange:
        return IdRange(self._prefix + ids.first, self._prefix + ids.end)

    def clear(self, form_ids: Iterable[int] | None = None) -> None:
        """Remove what an earlier try staged, of these forms or altogether."""
        if form_ids is None:
            self._collection.delete_many(self._ids.filter)
        else:
            ids = [self._prefix + self._slice.document_id(form_id=form_id) for form_id in form_ids]
            self._collection.delete_many({"_id": {"$in": ids}})

    def add(self, documents: Iterable[Document]) -> int:
        """Stage documents, and return how many they were.

        Raises:
            DuplicateKeyError: Two documents have the same `_id`.
            SupersededError: Another try of the same task is staging too.
        """
        about = {"staged_at": datetime.now(timezone.utc), "try": self._try}
        staged = [{"_id": self._prefix + document["_id"], **about, "document": document} for document in documents]
        try:
            self._collection.insert_many(staged, ordered=False)
        except BulkWriteError as error:
            twice = [problem for problem in error.details["writeErrors"] if problem["code"] == _DUPLICATE_KEY]
            if not twice:
                raise
            self._refuse([problem["op"]["_id"] for problem in twice])
        return len(staged)

    def _refuse(self, doubled: list[str]) -> NoReturn:
        """Tell what was staged twice: by this try, or by one that was thought dead and is not."""
        if self._collection.find_one({"_id": {"$in": doubled}, "try": {"$ne": self._try}}, {"_id": 1}):
            raise SupersededError(
                "another try of this task is still staging",
                where=str(self._slice),
                expected="one try of a task at a time",
                found="its documents among those of this one",
                cure="Nothing if a retry heals it; else end the other process and clear this task.",
            ) from None
        raise DuplicateKeyError(
            "two rows of MEG's would become the same document",
            where=str(self._slice),
            expected=f"rows that differ in {', '.join(self._slice.job.key_fields)}",
            found=f"{len(doubled)} doubled, such as _id {doubled[0].removeprefix(self._prefix)}",
            cure=f"Mend include/sql/{self._slice.job.name}.sql, so that a key gives one row.",
        ) from None

    def count(self, ids: IdRange) -> int:
        """How many documents are staged whose live `_id` lies in `ids`."""
        return self._collection.count_documents(self._range(ids).filter)

    def ids_every(self, step: int) -> list[str]:
        """The live `_id` of every `step`-th document, without the first."""
        return [staged.removeprefix(self._prefix) for staged in ids_every(self._collection, self._ids, step)]

    def documents(self, ids: IdRange) -> Iterator[bytes]:
        """The encoded documents whose live `_id` lies in `ids`, in the order of the `_id`s."""
        staged = self._collection.with_options(codec_options=_RAW)
        for envelope in staged.find(self._range(ids).filter, {"document": 1}, sort=[("_id", 1)], batch_size=BATCH):
            yield bytes(envelope["document"].raw)


def ids_every(collection: Collection[Any], ids: IdRange, step: int) -> list[str]:
    """The `_id` of every `step`-th document of a range, without the first."""
    found: list[str] = []
    rest = ids
    while True:
        after = list(collection.find(rest.filter, {"_id": 1}, sort=[("_id", 1)], skip=step, limit=1))
        if not after:
            return found
        found.append(after[0]["_id"])
        rest = IdRange(found[-1], ids.end)
