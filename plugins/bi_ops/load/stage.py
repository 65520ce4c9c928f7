"""Plan and stage: what a load will read, and the reading of it into the staging database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from bi_ops.catalog.slices import Slice
from bi_ops.errors import InvalidSourceRowError, PeriodError, PeriodNotEndedError, StagingError
from bi_ops.load.background import BackgroundWorker
from bi_ops.load.bad_values import ValueLocator, array
from bi_ops.load.documents import DocumentEncoder, Pseudonymizer
from bi_ops.load.register import Chunk, Completion, Load, LoadRegister, clear_group_hint
from bi_ops.load.staging import StagedSlice, StagingWriter
from bi_ops.meg.guarded_sql import describe, guard
from bi_ops.meg.reader import MegReader, QueryResult
from bi_ops.meg.time_zone import check_timezone
from bi_ops.mongo.store import Store

_FETCH_ROWS = 200
"""Rows fetched at once. Their texts are bounded, so memory stays flat; and where a query reads chunks, the statement
timeout is that of about 20 chunks, not of all."""
_MAX_CLOCK_SKEW = timedelta(seconds=10)
"""How far MEG's clock may be behind the as-of instant."""
_NEVER = datetime.max.replace(tzinfo=timezone.utc)
_MAX_WAIT = timedelta(hours=1)
"""An as-of instant further in the future is an error that waiting does not heal."""


@dataclass(frozen=True)
class StageProgress:
    """What staging some rows gave.

    Attributes:
        documents: How many documents they became.
        forms: The names of their forms, in the order of the rows; empty for a job without chunks.
    """

    documents: int
    forms: list[str]


def split_into_tasks(form_ids: Sequence[int], *, forms_per_chunk: int, max_tasks: int) -> list[list[Chunk]]:
    """Cut forms into chunks and the chunks into tasks: one each, or several in turn where there are too many.

    Without any form there is one task without a chunk, so that the empty slice is published too.
    """
    chunks: list[Chunk] = [
        list(form_ids[first : first + forms_per_chunk]) for first in range(0, len(form_ids), forms_per_chunk)
    ]
    tasks = max(1, min(len(chunks), max_tasks))
    return [chunks[len(chunks) * task // tasks : len(chunks) * (task + 1) // tasks] for task in range(tasks)]


def plan(meg: MegReader, slice_: Slice, *, sql: str, forms_per_chunk: int, max_tasks: int) -> list[list[Chunk]]:
    """List the chunks of each stage task.

    Args:
        meg: The region's MEG.
        slice_: The slice.
        sql: A query whose first column is the ids of the forms to read, sorted; unused for a job without chunks.
        forms_per_chunk: Forms that one query reads.
        max_tasks: The most stage tasks.
    """
    if not slice_.job.chunked:
        return [[None]]
    with meg.query(sql, slice_.sql_parameters) as result:
        form_ids = [row[0] for batch in result.batches for row in batch]
    return split_into_tasks(form_ids, forms_per_chunk=forms_per_chunk, max_tasks=max_tasks)


def check_source(meg: MegReader, slice_: Slice, timezone_name: str) -> None:
    """Check, before anything is planned, that MEG's server knows the time zone and that the as-of instant is past.

    Raises:
        SettingsError: The server lacks the time zone.
        PeriodNotEndedError: The as-of instant is not yet past by MEG's clock; clocks differ.
        PeriodError: It is far in the future.
    """
    check_timezone(meg, timezone_name, context=str(slice_))
    check_is_past(slice_, meg.clock())


def check_is_past(slice_: Slice, meg_now: datetime) -> None:
    """Check that the as-of instant is past by MEG's clock, the one by which sessions are submitted.

    Raises:
        PeriodNotEndedError: It is not yet; clocks differ.
        PeriodError: It is far in the future.
    """
    ahead = slice_.as_of - meg_now
    if ahead <= _MAX_CLOCK_SKEW:
        return
    expected = f"at most {meg_now:%Y-%m-%d %H:%M:%S %Z}, the time of MEG's clock"
    actual = f"{slice_.as_of.isoformat()}, {ahead.total_seconds():.0f} s ahead"
    if ahead <= _MAX_WAIT:
        raise PeriodNotEndedError(
            "the as-of instant is ahead of MEG's clock",
            context=str(slice_),
            expected=expected,
            actual=actual,
            hint="Retried automatically. If it persists, synchronize the clocks of Airflow's machines and of MEG by "
            "NTP; bi_doctor shows the clock skew.",
        )
    raise PeriodError(
        "the as-of instant is in the future",
        context=str(slice_),
        expected=expected,
        actual=actual,
        hint="Delete this run and trigger a new one. If its date is right, synchronize the clocks of Airflow's "
        "machines and of MEG by NTP; bi_doctor shows the clock skew.",
    )


def stage(
    meg: MegReader,
    store: Store,
    load: Load,
    task: int,
    chunks: Sequence[Chunk],
    *,
    sql: str,
    pseudonyms: Pseudonymizer | None = None,
) -> Iterator[StageProgress]:
    """Read one task's chunks from MEG into the staging database, in place of an earlier attempt's.

    Args:
        meg: The region's MEG.
        store: The databases.
        load: The load.
        task: The number of the task in the load's plan.
        chunks: The forms to read, ten at a time, as the plan gave them to this task.
        sql: The job's query; it may bind the slice's `sql_parameters`, `chunks` and `timezone`.
        pseudonyms: What replaces the names of people; None where they stay.

    Yields:
        What has been read; all of it is staged, and the task completed, when there is no more.

    Raises:
        SourceUnavailableError: MEG cannot be reached, or gave up on the way.
        SourceQueryError: MEG refused the query.
        InvalidSourceRowError: A row cannot become a document, or is of no chunk.
        DuplicateKeyError: Two rows would become the same document.
        SupersededError: Another attempt of the same task has begun.
        StagingError: The load is gone, or these are not its chunks.
    """
    _check_planned(load, task, chunks)
    register = LoadRegister(store)
    attempt_id = register.begin_task(load, task)
    reading = _Reading(meg, load, chunks, sql, pseudonyms)
    documents = 0
    with StagedSlice(store, load).writer(task, attempt_id) as staged:
        for batch in reading.into(staged):
            documents += batch.documents
            yield batch
    completion = Completion(attempt_id, len(chunks), documents, reading.measure, reading.read_at)
    register.complete_task(load, task, completion)


def _check_planned(load: Load, task: int, chunks: Sequence[Chunk]) -> None:
    planned = load.tasks[task] if task < len(load.tasks) else None
    if planned is None or list(planned) != list(chunks):
        raise StagingError(
            "the task's chunks differ from the load's plan",
            context=f"{load.slice}, stage task {task}",
            expected=f"{'no such task' if planned is None else f'the {len(planned)} planned chunks'} of load {load.id}",
            actual=f"{len(chunks)} other chunks",
            hint=clear_group_hint(load.slice.task_group),
        )


class _Reading:
    """One attempt to read a stage task's chunks; `measure` and `read_at` are whole once all has been read."""

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

    def into(self, staged: StagingWriter) -> Iterator[StageProgress]:
        if self._slice.job.chunked and not self._forms:
            self.read_at = self._meg.clock()
            return
        parameters = {**self._parameters, "chunks": [array(chunk) for chunk in self._chunks if chunk]}
        try:
            encoder = self._prepare(parameters)
            with self._meg.query(self._sql, parameters, _FETCH_ROWS) as result, BackgroundWorker() as in_meg:
                self.read_at = result.read_at
                for rows in in_meg.prefetch(result.batches):
                    staged.write(encoder(rows))
                    yield self._batch(result, rows)
        except InvalidSourceRowError as error:
            if error.context == str(self._slice):
                raise
            locator = ValueLocator(self._meg, self._sql, self._columns, parameters, self._chunks)
            raise locator.locate(error) from None

    def _prepare(self, parameters: dict[str, Any]) -> DocumentEncoder:
        """Guard the query by the types of its columns, and return what makes documents of its rows."""
        with self._meg.query(describe(self._sql), parameters) as described:
            encoder = DocumentEncoder(self._slice, described.columns, self._pseudonyms)
            self._columns = described.columns
            self._sql = guard(self._sql, described.columns, described.types)
            return encoder

    def _batch(self, result: QueryResult, rows: Sequence[Sequence[Any]]) -> StageProgress:
        job = self._slice.job
        self.measure += sum(_column(job.measure, result, rows))
        if not job.chunked:
            return StageProgress(len(rows), [])
        unknown = set(_column("form_id", result, rows)) - self._forms
        if unknown:
            raise InvalidSourceRowError(
                "the query returned a form outside the task's chunks",
                context=str(self._slice),
                expected=f"forms {', '.join(map(str, sorted(self._forms)))}",
                actual=f"form {min(unknown)}",
                hint=f"Add the filter form_id = ANY(chunk.form_ids::bigint[]) to include/sql/{job.name}.sql.",
            )
        return StageProgress(len(rows), _column("form_name", result, rows))


def _column(name: str, result: QueryResult, rows: Sequence[Sequence[Any]]) -> list[Any]:
    place = result.columns.index(name)
    return [row[place] for row in rows]
