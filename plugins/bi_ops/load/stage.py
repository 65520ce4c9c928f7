"""Stages a load: reads a task's chunks from MEG and writes their documents to the staging database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from bi_ops.errors import InvalidSourceRowError
from bi_ops.load.background_worker import BackgroundWorker
from bi_ops.load.documents import DocumentEncoder, Pseudonymizer
from bi_ops.load.staged_loads import Chunk, Completion, Load, LoadStates
from bi_ops.load.staging_buckets import StagingBuckets, StagingWriter
from bi_ops.load.value_locator import ValueLocator, array_literal
from bi_ops.meg.query_guard import describe, guard
from bi_ops.meg.reader import MegReader, QueryResult
from bi_ops.mongo.store import Store

_FETCH_ROWS = 200
"""The number of rows fetched at once. Text sizes are limited, so memory stays flat; and in a query of many chunks the
statement timeout applies to each fetch, which is about 20 chunks."""
_NEVER = datetime.max.replace(tzinfo=timezone.utc)


def stage(
    meg: MegReader,
    store: Store,
    load: Load,
    task: int,
    *,
    sql: str,
    pseudonyms: Pseudonymizer | None = None,
) -> Iterator[int]:
    """Read one task's chunks from MEG into the staging database, replacing the documents of an earlier attempt.

    Args:
        meg: The region's MEG.
        store: The databases.
        load: The load.
        task: The number of the task in the load's plan.
        sql: The job's query; it may bind the slice's `sql_parameters`, `chunks` and `timezone`.
        pseudonyms: Replaces names of people; None if they are kept.

    Yields:
        The number of documents in each batch; once exhausted, all documents are staged and the task is complete.

    Raises:
        SourceUnavailableError: MEG cannot be reached, or the query was interrupted.
        SourceQueryError: MEG refused the query.
        InvalidSourceRowError: A row cannot be stored as a document, or its form is in no chunk.
        DuplicateKeyError: Two rows have the same key.
        SupersededError: Another attempt of the same task has begun.
        StagingError: The load has expired, or its plan has no such task.
    """
    states = LoadStates(store)
    attempt = states.begin_task(load, task)
    reading = _Reading(meg, load, attempt.chunks, sql, pseudonyms)
    documents = 0
    with StagingBuckets(store, load).writer(task, attempt.id) as writer:
        for batch_documents in reading.copy_to(writer):
            documents += batch_documents
            yield batch_documents
    completion = Completion(attempt.id, len(attempt.chunks), documents, reading.measure, reading.read_at)
    states.complete_task(load, task, completion)


class _Reading:
    """One attempt to read a stage task's chunks; `measure` and `read_at` are final once all rows are read."""

    def __init__(
        self, meg: MegReader, load: Load, chunks: Sequence[Chunk], sql: str, pseudonyms: Pseudonymizer | None
    ) -> None:
        self._meg = meg
        self._slice = load.slice
        self._chunks = chunks
        self._forms = {form_id for chunk in chunks if chunk for form_id in chunk}
        self._parameters: dict[str, Any] = {**load.slice.sql_parameters, "timezone": load.settings.timezone}
        self._sql = sql
        self._columns: tuple[str, ...] = ()
        self._pseudonyms = pseudonyms
        self.measure = 0
        self.read_at = _NEVER

    def copy_to(self, writer: StagingWriter) -> Iterator[int]:
        if self._slice.job.chunked and not self._forms:
            self.read_at = self._meg.clock()
            return
        parameters = {**self._parameters, "chunks": [array_literal(chunk) for chunk in self._chunks if chunk]}
        try:
            encoder = self._prepare(parameters)
            with self._meg.query(self._sql, parameters, _FETCH_ROWS) as result, BackgroundWorker() as meg_worker:
                self.read_at = result.read_at
                for rows in meg_worker.prefetch(result.batches):
                    writer.write(encoder(rows))
                    self._record(result, rows)
                    yield len(rows)
        except InvalidSourceRowError as error:
            if error.context == str(self._slice):
                raise
            locator = ValueLocator(self._meg, self._sql, self._columns, parameters, self._chunks)
            raise locator.locate(error) from None

    def _prepare(self, parameters: dict[str, Any]) -> DocumentEncoder:
        """Guard the query according to its columns' types, and return the encoder of its rows."""
        with self._meg.query(describe(self._sql), parameters) as described:
            encoder = DocumentEncoder(self._slice, described.columns, self._pseudonyms)
            self._columns = described.columns
            self._sql = guard(self._sql, described.columns, described.types)
            return encoder

    def _record(self, result: QueryResult, rows: Sequence[Sequence[Any]]) -> None:
        job = self._slice.job
        self.measure += sum(_column(job.measure, result, rows))
        unknown = set(_column("form_id", result, rows)) - self._forms if job.chunked else None
        if unknown:
            raise InvalidSourceRowError(
                "the query returned a form outside the task's chunks",
                context=str(self._slice),
                expected=f"forms {', '.join(map(str, sorted(self._forms)))}",
                actual=f"form {min(unknown)}",
                hint=f"Add the filter form_id = ANY(chunk.form_ids::bigint[]) to include/sql/{job.name}.sql.",
            )


def _column(name: str, result: QueryResult, rows: Sequence[Sequence[Any]]) -> list[Any]:
    index = result.columns.index(name)
    return [row[index] for row in rows]
