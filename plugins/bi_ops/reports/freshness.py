"""Reports, from the ledger, what each job and region published last and which periods are missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pendulum

from bi_ops.catalog.jobs import JOBS, Job, LoadMode
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.mongo.store import Store
from bi_ops.reports.airflow_paths import dag_run_path
from bi_ops.reports.ledger_problems import LedgerProblem, ledger_problems, ledger_rows, unknown_documents
from bi_ops.reports.query_execution import Steps, execute
from bi_ops.settings import Settings

_IsOverdue = Callable[[Mapping[str, Any]], bool]
_STRIP = 24
"""The number of periods shown."""


@dataclass(frozen=True)
class Publishing:
    """The progress of a publish in several transactions, during which readers see new documents beside old ones.

    Attributes:
        documents: How many documents are new.
        total: How many there will be.
        run_path: The path in Airflow's UI of the DAG run that publishes.
    """

    documents: int
    total: int
    run_path: str


@dataclass(frozen=True)
class PeriodStatus:
    """One period of an append job.

    Attributes:
        period: Its name.
        documents: How many documents it has; None if it was never published.
        run_path: The path in Airflow's UI of the DAG run that loaded it, or that would load it.
        publishing: The progress of its publish, while one of several transactions is under way.
    """

    period: str
    documents: int | None
    run_path: str
    publishing: Publishing | None = None


@dataclass(frozen=True)
class Freshness:
    """What one job published of one region.

    Attributes:
        job: The job.
        region: The region.
        as_of: The last period, or the as-of instant in ISO 8601; empty if nothing was published.
        documents: How many documents the slice has.
        published_at: When it was published, in ISO 8601; empty if nothing was published.
        seconds: How long its load took.
        run_path: The path in Airflow's UI of the DAG run that published it, or of all runs.
        overdue: Whether a later publish is missing, `BI_DEADLINE_HOURS` after it was due.
        periods: For an append job, its periods since `BI_START_DATE`, the latest last.
        publishing: The progress of its last slice's publish, while one of several transactions is under way.
    """

    job: str
    region: str
    as_of: str
    documents: int
    published_at: str
    seconds: float
    run_path: str
    overdue: bool
    periods: tuple[PeriodStatus, ...]
    publishing: Publishing | None = None


@dataclass(frozen=True)
class Overview:
    """What is published, and the problems that make it wrong or not final.

    Attributes:
        jobs: Each job and region of the settings.
        problems: The problems of the figures.
    """

    jobs: list[Freshness]
    problems: list[LedgerProblem]


def freshness(store: Store, settings: Settings, now: datetime | None = None) -> list[Freshness]:
    """What is published, for each job and region of the settings, from the ledger alone."""
    return overview(store, settings, now).jobs


def overview(store: Store, settings: Settings, now: datetime | None = None) -> Overview:
    """What is published, and what makes it wrong or not final."""
    return execute(store.live, overview_steps(store.live.name, settings, now))


def overview_steps(database: str, settings: Settings, now: datetime | None = None) -> Steps[Overview]:
    """The queries of `overview`.

    Args:
        database: The live database's name.
        settings: The settings in force.
        now: The present.
    """
    rows = yield ledger_rows()
    documents = yield unknown_documents(settings)
    by_slice: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_slice[row["job"], row["region"]].append(row)
    now = now or datetime.now(timezone.utc)
    jobs = []
    for job in JOBS:
        periods = list(_periods(job, settings, now))
        for region in settings.regions:
            slice_rows = by_slice[job.name, region]
            states = tuple(_period_states(job, slice_rows, periods, settings, now))
            jobs.append(_freshness(job, region, slice_rows, states, partial(_is_overdue, job, settings, now)))
    return Overview(jobs, ledger_problems(rows, documents, database, settings, now))


def _freshness(
    job: Job, region: str, rows: list[dict[str, Any]], states: tuple[PeriodStatus, ...], is_overdue: _IsOverdue
) -> Freshness:
    published = [row for row in rows if row.get("published_at")]
    if not published:
        unfinished = next((row for row in rows if row.get("publishing")), None)
        return Freshness(
            job.name,
            region,
            "",
            0,
            "",
            0,
            dag_run_path(job.cadence.dag_id),
            overdue=True,
            periods=states,
            publishing=_publishing(job, unfinished),
        )
    last = max(published, key=lambda row: (row.get("period") or "", row["as_of"]))
    published_at = last["published_at"]
    return Freshness(
        job=job.name,
        region=region,
        as_of=last.get("period") or last["as_of"].isoformat(),
        documents=last["documents"],
        published_at=published_at.isoformat(),
        seconds=round((published_at - last.get("started_at", published_at)).total_seconds(), 1),
        run_path=dag_run_path(job.cadence.dag_id, last["run_id"]),
        overdue=is_overdue(last),
        periods=states,
        publishing=_publishing(job, last),
    )


def _is_overdue(job: Job, settings: Settings, now: datetime, row: Mapping[str, Any]) -> bool:
    """Whether a later publish is missing: a period or week has ended, and its deadline has passed.

    Periods are compared by name, since the same period begins at another instant in another time zone.
    """
    settled = now - timedelta(hours=settings.deadline_hours)
    if job.cadence is Cadence.WEEKLY:
        return bool(row["as_of"] < settled - timedelta(weeks=1))
    current = Period.containing(settled, job.cadence, settings.timezone)
    if period := row.get("period"):
        return bool(period < current.previous().name)
    return Period.containing(row["as_of"], job.cadence, row.get("timezone") or settings.timezone).name < current.name


def _publishing(job: Job, row: Mapping[str, Any] | None) -> Publishing | None:
    state = row.get("publishing") if row else None
    if not state:
        return None
    run = dag_run_path(job.cadence.dag_id, state.get("run_id") or "")
    return Publishing(state.get("documents") or 0, state.get("of") or 0, run)


def _periods(job: Job, settings: Settings, now: datetime) -> Iterator[Period]:
    """The periods of an append job that have ended since the start date."""
    if job.mode is LoadMode.REPLACE_PERIOD:
        last = Period.containing(now, job.cadence, settings.timezone).previous()
        yield from (period for period in last.trailing(_STRIP) if period.start >= settings.start_datetime)


def _period_states(
    job: Job, rows: list[dict[str, Any]], periods: list[Period], settings: Settings, now: datetime
) -> Iterator[PeriodStatus]:
    """The periods, each with the DAG run that loaded it or that the schedule has for it."""
    by_period = {row.get("period"): row for row in rows}
    for period in periods:
        row = by_period.get(period.name)
        if row and row.get("published_at"):
            run = dag_run_path(job.cadence.dag_id, row["run_id"])
            yield PeriodStatus(period.name, row["documents"], run, _publishing(job, row))
        elif row and (publishing := _publishing(job, row)):
            yield PeriodStatus(period.name, None, publishing.run_path, publishing)
        elif period.end + timedelta(hours=settings.deadline_hours) <= now:
            scheduled = f"scheduled__{pendulum.instance(period.end).in_timezone('UTC').isoformat()}"
            yield PeriodStatus(period.name, None, dag_run_path(job.cadence.dag_id, scheduled))
