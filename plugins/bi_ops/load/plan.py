"""Plans a load: lists its forms, cuts them into chunks, assigns these to stage tasks, and checks MEG's clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from bi_ops.catalog.slices import Slice
from bi_ops.errors import PeriodError, PeriodNotEndedError
from bi_ops.load.staged_loads import Chunk
from bi_ops.meg.reader import MegReader
from bi_ops.meg.server_time_zone import check_timezone

_MAX_CLOCK_SKEW = timedelta(seconds=10)
"""How far MEG's clock may be behind the as-of instant."""
_MAX_WAIT = timedelta(hours=1)
"""An as-of instant further in the future is an error that no retry resolves."""
_USUAL_FORMS = 10
"""The usual number of forms of a stage task, which its description does not repeat."""


def split_into_tasks(form_ids: Sequence[int], *, forms_per_chunk: int, max_tasks: int) -> list[list[Chunk]]:
    """Split form ids into chunks and the chunks into tasks: one chunk per task, or more beyond `max_tasks`.

    Without forms there is one task without chunks, so that the empty slice is published too.
    """
    chunks: list[Chunk] = [
        list(form_ids[first : first + forms_per_chunk]) for first in range(0, len(form_ids), forms_per_chunk)
    ]
    tasks = max(1, min(len(chunks), max_tasks))
    return [chunks[len(chunks) * task // tasks : len(chunks) * (task + 1) // tasks] for task in range(tasks)]


def describe_forms(chunks: Sequence[Chunk]) -> str:
    """The forms of a stage task in words, such as `forms 15-39`, with their number unless that is ten."""
    ids = [form_id for chunk in chunks if chunk for form_id in chunk]
    if not ids:
        return "everything" if chunks else "no forms"
    if len(ids) == 1:
        return f"form {ids[0]}"
    count = "" if len(ids) == _USUAL_FORMS else f" ({len(ids)})"
    return f"forms {ids[0]}\N{EN DASH}{ids[-1]}{count}"


def plan(meg: MegReader, slice_: Slice, *, sql: str, forms_per_chunk: int, max_tasks: int) -> list[list[Chunk]]:
    """List the chunks of each stage task.

    Args:
        meg: The region's MEG.
        slice_: The slice.
        sql: A query whose first column holds the sorted form ids; unused for a job without chunks.
        forms_per_chunk: The number of forms in a chunk.
        max_tasks: The maximum number of stage tasks.
    """
    if not slice_.job.chunked:
        return [[None]]
    with meg.query(sql, slice_.sql_parameters) as result:
        form_ids = [row[0] for batch in result.batches for row in batch]
    return split_into_tasks(form_ids, forms_per_chunk=forms_per_chunk, max_tasks=max_tasks)


def check_source(meg: MegReader, slice_: Slice, timezone_name: str) -> None:
    """Check that MEG's server has the time zone and that the as-of instant is past.

    Raises:
        SettingsError: The server does not have the time zone.
        PeriodNotEndedError: The as-of instant is slightly in the future by MEG's clock; the clocks differ.
        PeriodError: The as-of instant is far in the future.
    """
    check_timezone(meg, timezone_name, context=str(slice_))
    check_is_past(slice_, meg.clock())


def check_is_past(slice_: Slice, meg_now: datetime) -> None:
    """Check that the as-of instant is past by MEG's clock, which sets the time of each submission.

    Raises:
        PeriodNotEndedError: It is slightly in the future; the clocks differ.
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
