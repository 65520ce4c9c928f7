"""Loads a slice as the operators do, without Airflow: plan, stage every chunk, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from datetime import timezone as timezones
from typing import Any

import bson

from bi_ops.catalog.jobs import Job, LoadMode, get_job
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.catalog.slices import Slice
from bi_ops.catalog.sql_templates import render_sql
from bi_ops.load.plan import plan
from bi_ops.load.publish import PublishResult, publish
from bi_ops.load.stage import stage
from bi_ops.load.staged_loads import Chunk, Completion, Load, LoadSettings, LoadStates
from bi_ops.load.staging_buckets import StagingBuckets
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.raw_bson import get_id
from bi_ops.mongo.store import DagRunRef, Store

SUBMISSIONS = get_job("monthly_submissions")
RUN = DagRunRef("bi_monthly", "scheduled__2026-11-01T00:00:00+00:00")
API_PAUSE = 0.5
"""The seconds between two calls of Airflow's API, of which each takes 70 ms of its server's CPU time."""


def monthly_slice(name: str = "2026-10", *, region: str = "eu", job: Job = SUBMISSIONS, timezone: str = "UTC") -> Slice:
    period = Period.parse(name, job.cadence, timezone)
    assert job.mode is LoadMode.REPLACE_PERIOD
    return Slice(job, region, period.end, period)


def make_slice(name: str, at: datetime, *, region: str = "eu", timezone: str = "UTC") -> Slice:
    """The slice of a job for the instant `at`: a snapshot of it, or the last period that ended before it."""
    job = get_job(name)
    if job.is_snapshot:
        return Slice(job, region, at)
    period = Period.containing(at, job.cadence, timezone).previous()
    return Slice(job, region, period.end, period)


def live_documents_by_id(store: Store, slice_: Slice) -> dict[str, dict[str, Any]]:
    """The live documents of a slice by `_id`, without the load metadata."""
    return {
        document.pop("_id"): {name: value for name, value in document.items() if name not in ("loaded_at", "run_id")}
        for document in live_documents(store, slice_)
    }


def plan_slice(
    store: Store, meg: MegReader, slice_: Slice, run: DagRunRef = RUN, *, timezone: str = "UTC", **plan_options: int
) -> Load:
    """Plan as the operator does, and register the load."""
    store.ensure_staging_collections(slice_.job.name)
    plan_options = {"forms_per_chunk": 10, "max_tasks": 256, **plan_options}
    tasks = plan(meg, slice_, sql=render_sql("list_forms.sql"), **plan_options)
    return create_load(store, slice_, tasks, run, timezone=timezone)


def create_load(
    store: Store, slice_: Slice, tasks: Sequence[Sequence[Chunk]], run: DagRunRef = RUN, *, timezone: str = "UTC"
) -> Load:
    load = Load(slice_, run, LoadSettings(timezone, 10), datetime.now(timezones.utc))
    LoadStates(store).create(load, tasks)
    return load


def planned_tasks(store: Store, load: Load) -> list[list[Chunk]]:
    """The chunks of each stage task of a load, as its plan stored them."""
    [row] = store.loads.find({"_id": load.id})
    tasks: list[list[Chunk]] = row["tasks"]
    return tasks


def stage_slice(
    store: Store,
    meg: MegReader,
    slice_: Slice,
    run: DagRunRef = RUN,
    *,
    sql: str | None = None,
    timezone: str = "UTC",
    **plan_options: int,
) -> Load:
    """Plan and stage; returns a load that is ready to publish."""
    load = plan_slice(store, meg, slice_, run, timezone=timezone, **plan_options)
    for task in range(len(planned_tasks(store, load))):
        stage_task(store, meg, load, task, sql=sql)
    return load


def stage_task(store: Store, meg: MegReader, load: Load, task: int, *, sql: str | None = None) -> int:
    """Stage one task of a load; returns the number of documents."""
    sql = render_sql(f"{load.slice.job.name}.sql") if sql is None else sql
    return sum(stage(meg, store, load, task, sql=sql))


def load_slice(store: Store, meg: MegReader, slice_: Slice, run: DagRunRef = RUN, **options: Any) -> PublishResult:
    """Plan, stage and publish a slice, with the default guards."""
    publish_options = {
        name: options.pop(name) for name in ("force", "dry_run", "max_transaction_documents") if name in options
    }
    return publish(store, stage_slice(store, meg, slice_, run, **options), max_shrink=0.5, **publish_options)


def live_documents(store: Store, slice_: Slice) -> list[dict[str, Any]]:
    """The live documents of a slice, by `_id`."""
    return list(store.live[slice_.job.name].find(slice_.id_range.filter, sort=[("_id", 1)]))


def live_submissions(store: Store, slice_: Slice) -> dict[int, int]:
    """The live submissions of a slice, by form id."""
    return {document["form_id"]: document["submissions"] for document in live_documents(store, slice_)}


def live_raw_documents(store: Store, slice_: Slice) -> dict[str, bytes]:
    """The live documents of a slice as bytes, each without the load metadata after its last field."""
    raw_documents = (
        bytes(document.raw) for document in store.live_collection(slice_.job.name).find(slice_.id_range.filter)
    )
    return {get_id(raw).decode(): raw[4 : raw.rindex(b"\x09loaded_at\0")] for raw in raw_documents}


def stage_documents(
    store: Store,
    slice_: Slice,
    numbers: dict[int, int],
    run: DagRunRef = RUN,
    *,
    read_at: datetime | None = None,
    timezone: str = "UTC",
    **extra: Any,
) -> Load:
    """Stage generated documents, without MEG, with these submissions by form id."""
    store.ensure_staging_collections(slice_.job.name)
    forms = list(numbers.items())
    batches = [forms[first : first + 5000] for first in range(0, len(forms), 5000)] or [[]]
    load = create_load(store, slice_, [[None]] * len(batches), run, timezone=timezone)
    states = LoadStates(store)
    for number, batch in enumerate(batches):
        attempt = states.begin_task(load, number)
        with StagingBuckets(store, load).writer(number, attempt.id) as task:
            task.write([make_document(slice_, form, submissions, **extra) for form, submissions in batch])
        measure = sum(submissions for _, submissions in batch)
        completion = Completion(attempt.id, 1, len(batch), measure, read_at or datetime.now(timezones.utc))
        states.complete_task(load, number, completion)
    return load


def make_document(slice_: Slice, form: int, submissions: int, **extra: Any) -> bytes:
    """A document of a form, encoded as it is staged."""
    fields = {"region": slice_.region, "form_id": form, "submissions": submissions, **extra}
    return bson.encode({"_id": slice_.document_id(form_id=form), **fields})


def staged_count(store: Store, load: Load) -> int:
    """The number of documents that the completed tasks of a load have staged."""
    return sum(bucket.documents for bucket in StagingBuckets(store, load).list_buckets(LoadStates(store).staged(load)))


def wait_until(
    condition: Callable[[], bool],
    seconds: float = 30,
    *,
    pause: float = 0.05,
    problem: Callable[[], str] = lambda: "the condition did not become true",
) -> None:
    """Wait for a condition, which is checked after each pause, and fail with the problem if it is not true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{problem()} within {seconds:.0f} s"
        time.sleep(pause)


def publish_empty(store: Store, job: str, region: str, month: str = "2026-10") -> None:
    """Publish a month of a monthly job and region, without any document."""
    slice_ = make_slice(job, Period.parse(month, Cadence.MONTHLY, "UTC").end, region=region)
    publish(store, stage_documents(store, slice_, {}), max_shrink=1)
