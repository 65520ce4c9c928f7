"""Runs the reports' queries, written once as steps, with a blocking or an asynchronous client."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout

from bi_ops.errors import ReportError
from bi_ops.mongo.store import Document

MAX_ROWS = 5_000
QUERY_TIMEOUT_MS = 10_000
"""How long MongoDB may work on one query, in ms."""

# One batch: a query is one round trip, and no `getMore` runs without a time limit.
_OPTIONS: dict[str, Any] = {"maxTimeMS": QUERY_TIMEOUT_MS, "allowDiskUse": False, "batchSize": MAX_ROWS + 1}

T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """One aggregation.

    Attributes:
        collection: The collection it reads.
        pipeline: Its stages.
        context: The report or the part of the page that it belongs to, for errors.
    """

    collection: str
    pipeline: list[dict[str, Any]]
    context: str = "the reports"


def select_fields(collection: str, match: Document, fields: Sequence[str], context: str) -> Query:
    """The query for some fields of the documents that match, without their `_id`."""
    project = {"_id": 0, **dict.fromkeys(fields, 1)}
    return Query(collection, [{"$match": match}, {"$project": project}], context)


Steps = Generator[Query, list[Document], T]
"""Yields queries, receives the rows of each, and returns a result."""


def execute(database: Database[Document], steps: Steps[T]) -> T:
    """Run the steps with a blocking client.

    Raises:
        ReportError: MongoDB worked on a query for too long.
    """
    try:
        query = next(steps)
        while True:
            with _translate_timeouts(query):
                rows = list(database[query.collection].aggregate(query.pipeline, **_OPTIONS))
            query = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


async def execute_async(database: AsyncDatabase[Document], steps: Steps[T]) -> T:
    """Run the steps with an asynchronous client, as `execute` does."""
    try:
        query = next(steps)
        while True:
            with _translate_timeouts(query):
                async with await database[query.collection].aggregate(query.pipeline, **_OPTIONS) as cursor:
                    rows = await cursor.to_list()
            query = steps.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


@contextmanager
def _translate_timeouts(query: Query) -> Iterator[None]:
    try:
        yield
    except ExecutionTimeout:
        raise ReportError(
            "the report took too long to compute",
            context=query.context,
            expected=f"at most {QUERY_TIMEOUT_MS / 1000:g} s",
            hint="Choose fewer months, or create the indexes of include/mongo/indexes.json on the Atlas website.",
        ) from None
