"""Plan and stage: what a load will read, and the reading of it into the staging database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bi_ops.documents import DocumentMaker, Pseudonyms
from bi_ops.errors import SourceRowError
from bi_ops.slices import Slice
from bi_ops.source import Meg
from bi_ops.store import StagedSlice

Chunk = list[int] | None
"""The ids of the forms that one query reads; None where a job reads everything in one."""


@dataclass(frozen=True)
class StagedChunk:
    """What staging one chunk gave.

    Attributes:
        documents: How many documents were staged.
        forms: The names of the chunk's forms, in the order of the rows; empty for a job without chunks.
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
    chunk: Chunk,
    *,
    sql: str,
    timezone: str,
    pseudonyms: Pseudonyms | None = None,
) -> StagedChunk:
    """Read one chunk from MEG into the staging database, in place of what an earlier try staged of it.

    Args:
        meg: The region's MEG.
        staged: Where the run stages the slice.
        of: The slice.
        chunk: The forms to read.
        sql: The job's query; it may bind the slice's `parameters`, `form_ids` and `timezone`.
        timezone: The settings' time zone.
        pseudonyms: What replaces the names of people; None where they stay.

    Raises:
        SourceUnavailableError: MEG cannot be reached, or gave up on the way.
        SourceQueryError: MEG refused the query.
        SourceRowError: A row cannot become a document, or is not of this chunk.
        DuplicateKeyError: Two rows would become the same document.
        SupersededError: Another try of the same task is staging too.
    """
    staged.clear(chunk)
    parameters: dict[str, Any] = {**of.parameters, "form_ids": chunk, "timezone": timezone}
    count, forms = 0, []
    with meg.query(sql, parameters) as result:
        make = DocumentMaker(of, result.columns, pseudonyms)
        for batch in result.batches:
            documents = [make(row) for row in batch]
            if chunk is not None:
                _check_of_chunk(documents, of, chunk)
                forms += [document["form_name"] for document in documents]
            count += staged.add(documents)
    return StagedChunk(count, forms)


def _check_of_chunk(documents: list[dict[str, Any]], of: Slice, chunk: list[int]) -> None:
    strangers = {document["form_id"] for document in documents}.difference(chunk)
    if strangers:
        raise SourceRowError(
            "the SQL template gave forms that were not asked for",
            where=str(of),
            expected=f"forms {', '.join(map(str, chunk))}",
            found=f"form {min(strangers)}",
            cure=f"Filter by form_id = ANY(%(form_ids)s::bigint[]) in include/sql/{of.job.name}.sql.",
        )
