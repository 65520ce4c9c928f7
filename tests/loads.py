"""Loading a slice as the operators do, without Airflow: plan, stage every chunk, publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import bson

from bi_ops.encoded import id_of
from bi_ops.jobs import Job, Mode, job_named
from bi_ops.load import Chunk, plan, stage
from bi_ops.periods import Period
from bi_ops.publish import Load, Published, publish
from bi_ops.slices import Slice
from bi_ops.source import Meg
from bi_ops.staging import StagedSlice
from bi_ops.store import Run, Store
from bi_ops.templates import render

SUBMISSIONS = job_named("monthly_submissions")
RUN = Run("bi_monthly", "scheduled__2026-11-01T00:00:00+00:00")


def month(name: str = "2026-10", *, region: str = "eu", job: Job = SUBMISSIONS, timezone: str = "UTC") -> Slice:
    period = Period.parse(name, job.cadence, timezone)
    assert job.mode is Mode.APPEND
    return Slice(job, region, period.end, period)


def slice_of(name: str, at: datetime, *, region: str = "eu", timezone: str = "UTC") -> Slice:
    """The slice of any job that describes the instant `at`, or the period that ended last before it."""
    job = job_named(name)
    if job.is_snapshot:
        return Slice(job, region, at)
    period = Period.containing(at, job.cadence, timezone).before()
    return Slice(job, region, period.end, period)


def documents_of(store: Store, of: Slice) -> dict[str, dict[str, Any]]:
    """The live documents of a slice by `_id`, without the load stamps."""
    return {
        document.pop("_id"): {name: value for name, value in document.items() if name not in ("loaded_at", "run_id")}
        for document in live(store, of)
    }


def plan_slice(store: Store, meg: Meg, of: Slice, run: Run = RUN, **divided: int) -> list[list[Chunk]]:
    store.prepare_staging(of.job.name)
    divided = {"forms_per_chunk": 10, "max_tasks": 256, **divided}
    return plan(meg, StagedSlice(store, of, run), of, sql=render("plan_forms.sql"), **divided)


def stage_slice(
    store: Store, meg: Meg, of: Slice, run: Run = RUN, *, sql: str | None = None, timezone: str = "UTC", **divided: int
) -> Load:
    """Plan and stage; what is returned is ready to publish."""
    tasks = plan_slice(store, meg, of, run, **divided)
    sql = render(f"{of.job.name}.sql") if sql is None else sql
    staged = StagedSlice(store, of, run)
    documents = sum(
        done.documents for chunks in tasks for done in stage(meg, staged, of, chunks, sql=sql, timezone=timezone)
    )
    return load_of(of, documents, run, chunks=sum(map(len, tasks)))


def load_of(of: Slice, documents: int, run: Run = RUN, *, chunks: int = 1) -> Load:
    return Load(of, run, documents, chunks, datetime.now(timezone.utc))


def load_slice(store: Store, meg: Meg, of: Slice, run: Run = RUN, **how: Any) -> Published:
    """The whole of a load, with the default guards."""
    publishing = {name: how.pop(name) for name in ("force", "dry_run", "transaction_documents") if name in how}
    return publish(store, stage_slice(store, meg, of, run, **how), max_shrink=0.5, **publishing)


def live(store: Store, of: Slice) -> list[dict[str, Any]]:
    """The live documents of a slice, by `_id`."""
    return list(store.live[of.job.name].find(of.ids.filter, sort=[("_id", 1)]))


def live_bytes(store: Store, of: Slice) -> dict[str, bytes]:
    """The live documents of a slice to the byte, each without the two load stamps behind its last field."""
    found = (bytes(document.raw) for document in store.live_raw(of.job.name).find(of.ids.filter))
    return {id_of(raw).decode(): raw[4 : raw.rindex(b"\x09loaded_at\0")] for raw in found}


def stage_documents(store: Store, of: Slice, numbers: dict[int, int], run: Run = RUN, **more: Any) -> Load:
    """Stage made-up documents, `submissions` by form id, past MEG: for tests of publish alone."""
    store.prepare_staging(of.job.name)
    staged = StagedSlice(store, of, run)
    staged.clear()
    forms = list(numbers.items())
    for number, first in enumerate(range(0, len(forms), 5000)):
        with staged.task(number) as task:
            task.add([made_up(of, form, submissions, **more) for form, submissions in forms[first : first + 5000]])
    return load_of(of, len(numbers), run)


def made_up(of: Slice, form: int, submissions: int, **more: Any) -> bytes:
    """A document of a form, encoded, as it is staged."""
    fields = {"region": of.region, "form_id": form, "submissions": submissions, **more}
    return bson.encode({"_id": of.document_id(form_id=form), **fields})


def staged_count(store: Store, of: Slice, run: Run = RUN) -> int:
    return sum(pack.documents for pack in StagedSlice(store, of, run).packs())


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition, and fail where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
