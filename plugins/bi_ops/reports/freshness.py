"""How fresh the figures are: what each job and region published last, and which periods are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pendulum

from bi_ops.jobs import JOBS, Job, Mode
from bi_ops.links import run_path
from bi_ops.periods import Cadence, Period
from bi_ops.settings import Settings
from bi_ops.store import LEDGER, Store

_STRIP = 24
"""Periods that are shown, the latest last."""


@dataclass(frozen=True)
class PeriodState:
    """One period of a job that appends.

    Attributes:
        period: Its name.
        documents: How many documents it has; None where it was never published.
        run: The path of the DAG run that loaded it, or would, within Airflow's UI.
    """

    period: str
    documents: int | None
    run: str


@dataclass(frozen=True)
class Freshness:
    """What one job published of one region.

    Attributes:
        job: The job.
        region: The region.
        describes: The last period, or the as-of instant in ISO 8601; empty where nothing was published.
        documents: How many documents that has.
        published_at: When, in ISO 8601; empty where nothing was published.
        seconds: How long its load took.
        run: The path of the DAG run that published it, or of all runs, within Airflow's UI.
        overdue: Whether something later should be there, `BI_DEADLINE_HOURS` after it was due.
        periods: Of a job that appends: its periods since `BI_START_DATE`, the latest last.
    """

    job: str
    region: str
    describes: str
    documents: int
    published_at: str
    seconds: float
    run: str
    overdue: bool
    periods: tuple[PeriodState, ...]


def freshness(store: Store, settings: Settings, now: datetime | None = None) -> list[Freshness]:
    """What is published, for each job and region of the settings, from the ledger alone."""
    rows = list(store.live[LEDGER].find({"region": {"$in": list(settings.regions)}}, max_time_ms=10_000))
    now = now or datetime.now(timezone.utc)
    return [
        _of(job, region, [row for row in rows if (row["job"], row["region"]) == (job.name, region)], settings, now)
        for job in JOBS
        for region in settings.regions
    ]


def _of(job: Job, region: str, rows: list[dict[str, Any]], settings: Settings, now: datetime) -> Freshness:
    periods = tuple(_periods(job, {row["period"]: row for row in rows}, settings, now))
    if not rows:
        return Freshness(job.name, region, "", 0, "", 0, run_path(job.cadence.dag_id), overdue=True, periods=periods)
    last = max(rows, key=lambda row: row["as_of"])
    return Freshness(
        job=job.name,
        region=region,
        describes=last["period"] or last["as_of"].isoformat(),
        documents=last["documents"],
        published_at=last["published_at"].isoformat(),
        seconds=round((last["published_at"] - last["started_at"]).total_seconds(), 1),
        run=run_path(job.cadence.dag_id, last["run_id"]),
        overdue=last["as_of"] < _due(job, settings, now),
        periods=periods,
    )


def _due(job: Job, settings: Settings, now: datetime) -> datetime:
    """The as-of that should be there by now: a run's period ends, or its week, and it is given its time."""
    settled = now - timedelta(hours=settings.deadline_hours)
    if job.cadence is Cadence.WEEKLY:
        return settled - timedelta(weeks=1)
    return Period.containing(settled, job.cadence, settings.timezone).start


def _periods(job: Job, rows: Mapping[str, Any], settings: Settings, now: datetime) -> Iterator[PeriodState]:
    """The periods that have ended since the start date, each with the run that loaded it, or that the schedule has."""
    if job.mode is not Mode.APPEND:
        return
    last = Period.containing(now, job.cadence, settings.timezone).before()
    for period in last.last(_STRIP):
        given_time = period.end + timedelta(hours=settings.deadline_hours)
        row = rows.get(period.name)
        if period.start >= settings.starts_at and (row or given_time <= now):
            scheduled = f"scheduled__{pendulum.instance(period.end).in_timezone('UTC').isoformat()}"
            run = run_path(job.cadence.dag_id, row["run_id"] if row else scheduled)
            yield PeriodState(period.name, row["documents"] if row else None, run)
