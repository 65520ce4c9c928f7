"""Plan and stage: what a load will read, and the reading of it into the staging database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bi_ops.behind import Behind
from bi_ops.documents import DocumentMaker, Pseudonyms
from bi_ops.errors import SourceRowError
from bi_ops.slices import Slice
from bi_ops.source import BATCH_ROWS, Meg, Result
from bi_ops.staging import StagedSlice

Chunk = list[int] | None
"""The ids of the forms that one query reads; None where a job reads everything in one."""


_ROWS_OF_CHUNKS = 200
"""Rows fetched at once where a query reads chunks: so the statement timeout is that of about 20 chunks, not of all."""


@dataclass(frozen=True)
class StagedBatch:
    """What staging some rows gave.

    Attributes:
        documents: How many documents they became.
        forms: The names of their forms, in the order of the rows; empty for a job without chunks.
    """

    documents: int
    forms: list[str]


def divide(form_ids: Sequence[int], *, forms_per_chunk: int, max_tasks: int) -> list[list[Chunk]]:
    """Cut forms into chunks and the chunks into tasks: one each, or several in turn where there are too many.

    Without any form there is one task without a chunk, so that the empty slice is published too.
    """
    chunks: list[Chunk] = [
        list(form_ids[first : first + forms_per_chunk]) for first in range(0, len(form_ids), forms_per_chunk)
    ]
    tasks = max(1, min(len(chunks), max_tasks))
    return [chunks[len(chunks) * task // tasks : len(chunks) * (task + 1) // tasks] for task in range(tasks)]


def plan(meg: Meg, staged: StagedSlice, of: Slice, *, sql: str, **divided: int) -> list[list[Chunk]]:
    """List the chunks of each stage task, and clear what an earlier try of this run staged.

    Args:
        meg: The region's MEG.
        staged: Where the run stages the slice.
        of: The slice.
        sql: A query whose first column is the ids of the forms to read, sorted; unused for a job without chunks.
        **divided: `forms_per_chunk` and `max_tasks`, as `divide` takes them.
    """
    staged.clear()
    if not of.job.in_chunks:
        return [[None]]
    with meg.query(sql, of.parameters) as result:
        form_ids = [row[0] for batch in result.batches for row in batch]
    return divide(form_ids, **divided)


def stage(
    meg: Meg,
    staged: StagedSlice,
    of: Slice,
    chunks: Sequence[Chunk],
    *,
    sql: str,
    timezone: str,
    pseudonyms: Pseudonyms | None = None,
) -> Iterator[StagedBatch]:
    """Read one task's chunks from MEG into the staging database, in place of what an earlier try staged of them.

    Args:
        meg: The region's MEG.
        staged: Where the run stages the slice.
        of: The slice.
        chunks: The forms to read, ten at a time.
        sql: The job's query; it may bind the slice's `parameters`, `chunks` and `timezone`.
        timezone: The settings' time zone.
        pseudonyms: What replaces the names of people; None where they stay.

    Yields:
        What has been read, as it is; all of it is staged when there is no more.

    Raises:
        SourceUnavailableError: MEG cannot be reached, or gave up on the way.
        SourceQueryError: MEG refused the query.
        SourceRowError: A row cannot become a document, or is of no chunk.
        DuplicateKeyError: Two rows would become the same document.
        SupersededError: Another try of the same task is staging too.
    """
    forms = {form_id for chunk in chunks if chunk for form_id in chunk}
    parameters: dict[str, Any] = {**of.parameters, "timezone": timezone}
    parameters["chunks"] = [f"{{{','.join(map(str, chunk))}}}" for chunk in chunks if chunk]
    batch_rows = _ROWS_OF_CHUNKS if of.job.in_chunks else BATCH_ROWS
    with staged.task(min(forms, default=0)) as task:
        if of.job.in_chunks and not forms:
            return
        with meg.query(sql, parameters, batch_rows) as result, Behind() as in_meg:
            make = DocumentMaker(of, result.columns, pseudonyms)
            for rows in in_meg.ahead(result.batches):
                task.add(make(rows))
                if of.job.in_chunks:
                    _check_of_chunks(_column("form_id", result, rows), of, forms)
                yield StagedBatch(len(rows), _column("form_name", result, rows) if of.job.in_chunks else [])


def _column(name: str, result: Result, rows: Sequence[Sequence[Any]]) -> list[Any]:
    place = result.columns.index(name)
    return [row[place] for row in rows]


def _check_of_chunks(found: list[int], of: Slice, forms: set[int]) -> None:
    strangers = set(found) - forms
    if strangers:
        raise SourceRowError(
            "the SQL template gave forms that were not asked for",
            where=str(of),
            expected=f"forms {', '.join(map(str, sorted(forms)))}",
            found=f"form {min(strangers)}",
            cure=f"Filter by form_id = ANY(chunk.form_ids::bigint[]) in include/sql/{of.job.name}.sql.",
        )
