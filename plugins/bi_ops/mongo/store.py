"""The live and staging MongoDB databases: reports read the live one, only the pipeline uses the staging one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from bi_ops.catalog.slices import IdRange
from bi_ops.errors import MongoConfigurationError
from bi_ops.mongo.raw_bson import split

LEDGER_COLLECTION = "bi_loads"
PUBLISH_LOCKS = "publish_locks"
LOADS_COLLECTION = "loads"
FAILURES = "failures"
REGION_STARTS = "region_starts"
WATCH_COLLECTION = "bi_watch"
DIGEST_COLLECTION = "bi_digest"
STAGING_SUFFIX = "_staging"
"""The staging database's name is the live one's with this suffix."""
STAGING_TTL = timedelta(days=30)
"""How long staged data is kept."""
BATCH_SIZE = 2_000
"""The number of documents read or written at once: enough to hide the round trip, few enough to keep memory flat."""

_NAMESPACE_EXISTS = 48
_INDEX_EXISTS = (85, 86)
"""MongoDB's codes for an index on the same field that has other options or another name."""
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument, tz_aware=True)

Document = dict[str, Any]


@dataclass(frozen=True)
class DagRunRef:
    """The DAG run that a load belongs to."""

    dag_id: str
    run_id: str


class Store:
    """The live and the staging database of one MongoDB connection.

    All reads go to the primary and all writes are acknowledged by a majority, whatever the connection's options: staged
    data must survive a change of primary, and a publish must not compare with a stale copy.
    """

    def __init__(self, client: MongoClient[Document], database: str) -> None:
        self.client = client
        self.live = self._database(database)
        self._staging = self._database(f"{database}{STAGING_SUFFIX}")

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
        return self.live[LEDGER_COLLECTION]

    @property
    def publish_locks(self) -> Collection[Document]:
        """One document for each slice, with the token of the publish that holds its lock."""
        return self._staging[PUBLISH_LOCKS]

    @property
    def loads(self) -> Collection[Document]:
        """One document for each planned load, kept as long as its staged data."""
        return self._staging[LOADS_COLLECTION]

    @property
    def failures(self) -> Collection[Document]:
        """The last failure of each slice that no retry resolves."""
        return self._staging[FAILURES]

    @property
    def region_starts(self) -> Collection[Document]:
        """When each region began to use MEG."""
        return self._staging[REGION_STARTS]

    @property
    def watch(self) -> Collection[Document]:
        """One document for each slice whose lateness has been reported, until it is published."""
        return self.live[WATCH_COLLECTION]

    @property
    def digest(self) -> Collection[Document]:
        """One document for each month, with what was sent of its digest."""
        return self.live[DIGEST_COLLECTION]

    def live_collection(self, name: str) -> Collection[RawBSONDocument]:
        """A live collection that returns encoded documents."""
        return self.live[name].with_options(codec_options=_RAW)

    def ensure_live_collections(self, job_name: str) -> None:
        """Create missing live collections, with no index but that of `_id`."""
        existing = set(self.live.list_collection_names(filter={"name": {"$in": [job_name, LEDGER_COLLECTION]}}))
        for name in {job_name, LEDGER_COLLECTION} - existing:
            try:
                self.live.create_collection(name, check_exists=False)
            except OperationFailure as error:
                if error.code != _NAMESPACE_EXISTS:
                    raise  # another region's load may have created it meanwhile

    def check_live_collections(self, job_name: str) -> None:
        """Check that the existing live collections are plain collections.

        Raises:
            MongoConfigurationError: One is a view, a time-series or a capped collection, or has a default collation.
        """
        for name, kind in self.special_live([job_name, LEDGER_COLLECTION]).items():
            raise MongoConfigurationError(
                f"the live collection {name} is {kind}",
                context=f"database {self.live.name}",
                expected="a plain collection, without a default collation",
                actual=kind,
                hint=f"Rename or drop {name}; the next load creates a plain collection of this name.",
            )

    def special_live(self, names: Sequence[str]) -> dict[str, str]:
        """The live collections that the pipeline cannot publish to: their kinds, by name."""
        collections = self.live.list_collections(filter={"name": {"$in": list(names)}})
        kinds = {collection["name"]: _unsupported_kind(collection) for collection in collections}
        return {name: kind for name, kind in kinds.items() if kind}

    def ensure_staging_collections(self, job_name: str) -> None:
        """Create missing staging collections, with the TTL index that deletes old data."""
        for name in (LOADS_COLLECTION, job_name):
            try:
                self._staging[name].create_index(
                    "staged_at", name="staged_at_ttl", expireAfterSeconds=int(STAGING_TTL.total_seconds())
                )
            except OperationFailure as error:
                if error.code not in _INDEX_EXISTS:
                    raise  # an administrator may choose another lifetime or name

    def staging_collection(self, job_name: str) -> Collection[RawBSONDocument]:
        """A staging collection that returns encoded documents."""
        return self._staging[job_name].with_options(codec_options=_RAW)


def _unsupported_kind(collection: Mapping[str, Any]) -> str:
    """The kind of a collection that the pipeline cannot publish to; empty for a plain one.

    A default collation also changes the order of the `_id`s, so that an `_id` range would not be a slice.
    """
    options = collection.get("options", {})
    if collection["type"] != "collection":
        return "a time-series collection" if collection["type"] == "timeseries" else f"a {collection['type']}"
    if options.get("capped"):
        return "a capped collection"
    locale = options.get("collation", {}).get("locale", "simple")
    return "" if locale == "simple" else f"a collection with the default collation {locale}"


def find_raw_batches(collection: Collection[RawBSONDocument], filter_: Document, **options: Any) -> Iterator[bytes]:
    """What is found, encoded, in batches in which the documents stand one behind the other."""
    found: Iterable[Any] = collection.find_raw_batches(filter_, **options)  # typed as if it gave documents
    return filter(None, found)


def iter_document_batches(
    collection: Collection[RawBSONDocument], ids: IdRange, session: ClientSession, batch_size: int
) -> Iterator[list[bytes]]:
    """The encoded documents of a range, in batches of so many at most, in the order of the `_id`s.

    MongoDB bounds each batch at 16 MB.
    """
    for batch in find_raw_batches(collection, ids.filter, sort=[("_id", 1)], batch_size=batch_size, session=session):
        yield [*split(batch)]
