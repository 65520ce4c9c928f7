"""Loading a slice as the operators do, without Airflow: plan, stage every chunk, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from datetime import timezone as timezones
from typing import Any

import bson

from bi_ops.catalog.jobs import Job, LoadMode, get_job
from bi_ops.catalog.periods import Period
from bi_ops.catalog.slices import Slice
from bi_ops.catalog.sql import render_sql
from bi_ops.load.publish import PublishResult, publish
from bi_ops.load.register import Chunk, Completion, Load, LoadRegister, LoadSettings
from bi_ops.load.stage import plan, stage
from bi_ops.load.staging import StagedSlice
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.raw_bson import get_id
from bi_ops.mongo.store import DagRunRef, Store

SUBMISSIONS = get_job("monthly_submissions")
RUN = DagRunRef("bi_monthly", "scheduled__2026-11-01T00:00:00+00:00")


def monthly_slice(name: str = "2026-10", *, region: str = "eu", job: Job = SUBMISSIONS, timezone: str = "UTC") -> Slice:
    period = Period.parse(name, job.cadence, timezone)
    assert job.mode is LoadMode.REPLACE_PERIOD
    return Slice(job, region, period.end, period)


def slice_of(name: str, at: datetime, *, region: str = "eu", timezone: str = "UTC") -> Slice:
    """The slice of any job that describes the instant `at`, or the period that ended last before it."""
    job = get_job(name)
    if job.is_snapshot:
        return Slice(job, region, at)
    period = Period.containing(at, job.cadence, timezone).previous()
    return Slice(job, region, period.end, period)


def documents_of(store: Store, slice_: Slice) -> dict[str, dict[str, Any]]:
    """The live documents of a slice by `_id`, without the load metadata."""
    return {
        document.pop("_id"): {name: value for name, value in document.items() if name not in ("loaded_at", "run_id")}
        for document in live_documents(store, slice_)
    }


def plan_slice(
    store: Store, meg: MegReader, slice_: Slice, run: DagRunRef = RUN, *, timezone: str = "UTC", **divided: int
) -> Load:
    """Plan as the operator does: the load is in the register."""
    store.ensure_staging_collections(slice_.job.name)
    divided = {"forms_per_chunk": 10, "max_tasks": 256, **divided}
    tasks = plan(meg, slice_, sql=render_sql("list_forms.sql"), **divided)
    return register(store, slice_, tasks, run, timezone=timezone)


def register(
    store: Store, slice_: Slice, tasks: Sequence[Sequence[Chunk]], run: DagRunRef = RUN, *, timezone: str = "UTC"
) -> Load:
    load = Load(slice_, run, LoadSettings(timezone, 10), tuple(tasks), datetime.now(timezones.utc))
    LoadRegister(store).create(load)
    return load


def stage_slice(
    store: Store,
    meg: MegReader,
    slice_: Slice,
    run: DagRunRef = RUN,
    *,
    sql: str | None = None,
    timezone: str = "UTC",
    **divided: int,
) -> Load:
    """Plan and stage; what is returned is ready to publish."""
    load = plan_slice(store, meg, slice_, run, timezone=timezone, **divided)
    for task in range(len(load.tasks)):
        stage_task(store, meg, load, task, sql=sql)
    return load


def stage_task(store: Store, meg: MegReader, load: Load, task: int, *, sql: str | None = None) -> int:
    """Stage one task of a load; returns how many documents that gave."""
    sql = render_sql(f"{load.slice.job.name}.sql") if sql is None else sql
    return sum(batch.documents for batch in stage(meg, store, load, task, load.tasks[task], sql=sql))


def load_slice(store: Store, meg: MegReader, slice_: Slice, run: DagRunRef = RUN, **how: Any) -> PublishResult:
    """The whole of a load, with the default guards."""
    publishing = {name: how.pop(name) for name in ("force", "dry_run", "max_transaction_documents") if name in how}
    return publish(store, stage_slice(store, meg, slice_, run, **how), max_shrink=0.5, **publishing)


def live_documents(store: Store, slice_: Slice) -> list[dict[str, Any]]:
    """The live documents of a slice, by `_id`."""
    return list(store.live[slice_.job.name].find(slice_.id_range.filter, sort=[("_id", 1)]))


def numbers_of(store: Store, slice_: Slice) -> dict[int, int]:
    """The live submissions of a slice, by form id."""
    return {document["form_id"]: document["submissions"] for document in live_documents(store, slice_)}


def live_raw_documents(store: Store, slice_: Slice) -> dict[str, bytes]:
    """The live documents of a slice to the byte, each without the load metadata behind its last field."""
    found = (bytes(document.raw) for document in store.live_collection(slice_.job.name).find(slice_.id_range.filter))
    return {get_id(raw).decode(): raw[4 : raw.rindex(b"\x09loaded_at\0")] for raw in found}


def stage_documents(
    store: Store,
    slice_: Slice,
    numbers: dict[int, int],
    run: DagRunRef = RUN,
    *,
    read_at: datetime | None = None,
    timezone: str = "UTC",
    **more: Any,
) -> Load:
    """Stage made-up documents, `submissions` by form id, past MEG: for tests of publish alone."""
    store.ensure_staging_collections(slice_.job.name)
    forms = list(numbers.items())
    parts = [forms[first : first + 5000] for first in range(0, len(forms), 5000)] or [[]]
    load = register(store, slice_, [[None]] * len(parts), run, timezone=timezone)
    loads = LoadRegister(store)
    for number, part in enumerate(parts):
        attempt = loads.begin_task(load, number)
        with StagedSlice(store, load).writer(number, attempt) as task:
            task.write([make_document(slice_, form, submissions, **more) for form, submissions in part])
        measure = sum(submissions for _, submissions in part)
        completion = Completion(attempt, 1, len(part), measure, read_at or datetime.now(timezones.utc))
        loads.complete_task(load, number, completion)
    return load


def make_document(slice_: Slice, form: int, submissions: int, **more: Any) -> bytes:
    """A document of a form, encoded, as it is staged."""
    fields = {"region": slice_.region, "form_id": form, "submissions": submissions, **more}
    return bson.encode({"_id": slice_.document_id(form_id=form), **fields})


def staged_count(store: Store, load: Load) -> int:
    """How many documents the completed tasks of a load have staged."""
    return sum(bucket.documents for bucket in StagedSlice(store, load).list_buckets(LoadRegister(store).staged(load)))


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition, and fail where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
