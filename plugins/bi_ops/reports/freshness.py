"""Reports, from the ledger, what each job and region published last and which periods are missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from bi_ops.catalog.due_slices import due_slices
from bi_ops.catalog.jobs import JOBS, Job, LoadMode
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.catalog.slices import Slice
from bi_ops.errors import abbreviate
from bi_ops.load.ledger import is_published
from bi_ops.mongo.store import Store
from bi_ops.reports.airflow_paths import dag_run_path, due_runs_path, trigger_path
from bi_ops.reports.load_history import PublishedLoad, list_loads
from bi_ops.reports.published_data_problems import LedgerProblem, ledger_problems, ledger_rows, unknown_documents
from bi_ops.reports.query_execution import Steps, execute
from bi_ops.settings import Settings

_ANY_REGION = ""
"""The same slices are due for each region: this page asks no MEG."""
_MAX_MISSING = 5
_HOUR, _DAY = 60, 24 * 60
"""In minutes."""


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
        run_path: The path in Airflow's UI of the DAG run that loaded it, or of the runs that would load it.
        publishing: The progress of its publish, while one of several transactions is under way.
        trigger_path: For a missing period, the path in Airflow's UI from which a run that loads it is triggered.
        params: The parameters of such a run.
    """

    period: str
    documents: int | None
    run_path: str
    publishing: Publishing | None = None
    trigger_path: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)


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
        overdue: Whether a later publish is missing, `BI_DEADLINE_HOURS` after it was due, or none was ever made.
        periods: For an append job, its periods since `BI_START_DATE` or the first one loaded, the latest last.
        publishing: The progress of its last slice's publish, while one of several transactions is under way.
        trigger_path: If it is overdue, the path in Airflow's UI from which a run that loads it is triggered.
        params: The parameters of such a run.
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
    trigger_path: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether everything that is due is published.

    Attributes:
        ok: Whether it is.
        total: The number of jobs and regions.
        missing: The number of periods and snapshots that are missing.
        text: The same in words.
    """

    ok: bool
    total: int
    missing: int
    text: str


@dataclass(frozen=True)
class Overview:
    """What is published, and the problems that make it wrong or not final.

    Attributes:
        verdict: Whether everything that is due is published.
        jobs: Each job and region of the settings.
        problems: The problems of the figures.
        loads: The newest loads, also of regions that are no longer in the settings.
    """

    verdict: Verdict
    jobs: list[Freshness]
    problems: list[LedgerProblem]
    loads: list[PublishedLoad]


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
    deadline = now - timedelta(hours=settings.deadline_hours)
    late = due_slices(settings, _ANY_REGION, deadline)
    start = _strip_start(rows, settings)
    ended = due_slices(settings, _ANY_REGION, now, start=start)
    missing = due_slices(settings, _ANY_REGION, deadline, start=start)
    for job in JOBS:
        for region in settings.regions:
            slice_rows = {row["_id"]: row for row in by_slice[job.name, region]}
            due = [replace(slice_, region=region) for slice_ in late if slice_.job == job]
            periods = [replace(slice_, region=region) for slice_ in reversed(ended) if slice_.job == job]
            states = tuple(_period_states(job, slice_rows, [slice_.as_of for slice_ in missing], periods))
            status = _freshness(job, region, slice_rows, due, states)
            if status.overdue:
                newest = due[0] if due else Slice(job, region, now)
                params = _run_params(newest)
                status = replace(status, trigger_path=trigger_path(job.cadence.dag_id), params=params)
            jobs.append(status)
    return Overview(
        _verdict(jobs, now), jobs, ledger_problems(rows, documents, database, settings, now), list_loads(rows)
    )


def _freshness(
    job: Job, region: str, rows: dict[str, dict[str, Any]], due: list[Slice], states: tuple[PeriodStatus, ...]
) -> Freshness:
    """What one job published of one region.

    Args:
        job: The job.
        region: The region.
        rows: The ledger's rows of both, by `_id`.
        due: The slices whose deadline has passed, the newest first.
        states: The periods of an append job, the latest last.
    """
    published = [row for row in rows.values() if row.get("published_at")]
    if not published:
        unfinished = next((row for row in rows.values() if row.get("publishing")), None)
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
        overdue=_is_overdue(due, rows),
        periods=states,
        publishing=_publishing(job, last),
    )


def _is_overdue(due: list[Slice], rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the last slice whose deadline has passed is missing; one that is being replaced is not."""
    if not due:
        return False
    row = rows.get(due[0].ledger_id)
    return not is_published(due[0], row and {**row, "publishing": None})


def _publishing(job: Job, row: Mapping[str, Any] | None) -> Publishing | None:
    state = row.get("publishing") if row else None
    if not state:
        return None
    run = dag_run_path(job.cadence.dag_id, state.get("run_id") or "")
    return Publishing(state.get("documents") or 0, state.get("of") or 0, run)


def _strip_start(rows: list[dict[str, Any]], settings: Settings) -> datetime:
    """Where the strips begin: at `BI_START_DATE`, or at the first period that a region of the settings has."""
    names = [row["period"] for row in rows if row.get("period") and row["region"] in settings.regions]
    starts = [Period.parse(name, Cadence.MONTHLY, settings.timezone).start for name in names if "Q" not in name]
    return min([settings.start_datetime, *starts])


def _period_states(
    job: Job, rows: Mapping[str, Mapping[str, Any]], missing: list[datetime], ended: list[Slice]
) -> Iterator[PeriodStatus]:
    """The periods of an append job, each with the DAG run that loaded it or with those that the schedule has for it."""
    if job.mode is not LoadMode.REPLACE_PERIOD:
        return
    for slice_ in ended:
        name, row = str(slice_.period and slice_.period.name), rows.get(slice_.ledger_id)
        if row and row.get("published_at"):
            run = dag_run_path(job.cadence.dag_id, row["run_id"])
            yield PeriodStatus(name, row["documents"], run, _publishing(job, row))
        elif row and (publishing := _publishing(job, row)):
            yield PeriodStatus(name, None, publishing.run_path, publishing)
        elif slice_.as_of in missing:
            run = due_runs_path(job.cadence.dag_id, slice_.as_of)
            yield PeriodStatus(name, None, run, None, trigger_path(job.cadence.dag_id), _run_params(slice_))


def _run_params(slice_: Slice) -> Mapping[str, Any]:
    """The parameters of a run that loads one slice; a snapshot describes the present."""
    period = {"period": slice_.period.name} if slice_.period else {}
    return {"jobs": [slice_.job.name], "regions": [slice_.region], **period}


def _verdict(jobs: list[Freshness], now: datetime) -> Verdict:
    missing = [name for status in jobs for name in _missing(status)]
    if missing:
        text = f"{len(missing)} missing: {abbreviate(missing, _MAX_MISSING)}"
        return Verdict(ok=False, total=len(jobs), missing=len(missing), text=text)
    published = max((status.published_at for status in jobs if status.published_at), default="")
    last = f", last published {_ago(now - datetime.fromisoformat(published))}" if published else ""
    return Verdict(ok=True, total=len(jobs), missing=0, text=f"All {len(jobs)} up to date{last}")


def _missing(status: Freshness) -> list[str]:
    """The missing periods of a job and region; its name alone where a snapshot, or everything, is missing."""
    name = f"{status.job} {status.region}"
    periods = [f"{name} {state.period}" for state in status.periods if state.trigger_path]
    return periods or ([name] if status.overdue and not status.publishing else [])


def _ago(age: timedelta) -> str:
    """How long ago something was, in its largest unit."""
    minutes = max(0, int(age.total_seconds() // 60))
    if minutes < _HOUR:
        return f"{minutes} min ago"
    return f"{minutes // _HOUR} h ago" if minutes < 2 * _DAY else f"{minutes // _DAY} days ago"
