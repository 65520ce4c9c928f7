"""Builds the DAG of each cadence (the gate, then plan, stage and publish per job and region) and bi_doctor."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, Param, TaskGroup

from bi_ops.airflow.gate import check_run
from bi_ops.airflow.notifier import BiNotifier
from bi_ops.airflow.operators import (
    PARTITIONS_SUFFIX,
    XCOM_LOAD_KEY,
    DoctorOperator,
    GateOperator,
    PlanOperator,
    PublishOperator,
    StageOperator,
    WaitUntilHourOperator,
)
from bi_ops.airflow.required_xcom import RequiredXComArg
from bi_ops.airflow.timetable import PeriodTimetable
from bi_ops.airflow.version_compat import SUPPORTS_ASSET_PARTITIONS
from bi_ops.catalog.jobs import Job, jobs_for
from bi_ops.catalog.periods import PERIOD_EXAMPLES, Cadence
from bi_ops.catalog.sql_templates import include_dir
from bi_ops.settings import Settings

_PERIOD_HELP = {
    Cadence.MONTHLY: f"{PERIOD_EXAMPLES[Cadence.MONTHLY].capitalize()}; empty for the last one.",
    Cadence.QUARTERLY: f"{PERIOD_EXAMPLES[Cadence.QUARTERLY].capitalize()}; empty for the last one.",
    Cadence.WEEKLY: f"A snapshot of the end of {PERIOD_EXAMPLES[Cadence.WEEKLY]}; empty for now.",
}
RETRIES: dict[str, Any] = {  # after 30 s, 1, 2, 4, 8 and 15 minutes: enough for an outage of half an hour
    "retries": 6,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(hours=2),
}


def build_dag(cadence: Cadence, doc_md: str | None) -> DAG:
    """The DAG of one cadence.

    Args:
        cadence: The cadence, which decides its jobs and schedule.
        doc_md: Its documentation in Airflow; `{jobs}` and `{failures}` become the tables of jobs and of messages.
    """
    settings = Settings.from_env()
    jobs = jobs_for(cadence)
    with DAG(
        dag_id=cadence.dag_id,
        description=f"MEG usage, {cadence.value}: {', '.join(job.name for job in jobs)}",
        doc_md=(doc_md or "").replace("{jobs}", _job_table(jobs)).replace("{failures}", _failure_table()),
        schedule=PeriodTimetable(cadence, settings.timezone),
        start_date=settings.start_datetime,
        catchup=cadence is not Cadence.WEEKLY,  # only the newest weekly snapshot matters
        max_active_runs=1,
        default_args=RETRIES,
        on_failure_callback=BiNotifier(),
        params=_params(cadence, jobs, settings),
        template_searchpath=[str(include_dir() / "sql")],
        tags=["meg-bi", cadence.value],
    ) as dag:
        gate = GateOperator(
            task_id="gate",
            python_callable=check_run,
            op_kwargs={"cadence": cadence.value},
            doc_md="Skips the run while `BI_AGGREGATE` is off, else what its parameters do not select; fails if they "
            "are invalid; see its log.",
        )
        starts = {0: gate, **{hour: gate >> _wait(hour) for hour in sorted({job.earliest_hour for job in jobs} - {0})}}
        for job in jobs:
            starts[job.earliest_hour] >> _job_group(job, settings)
    return dag


def build_doctor_dag(doc_md: str | None) -> DAG:
    """The DAG that checks what the other DAGs depend on; triggered manually.

    Args:
        doc_md: Its documentation in Airflow.
    """
    settings = Settings.from_env()
    with DAG(
        dag_id="bi_doctor",
        description="Checks what the BI jobs need: settings, connections, privileges, required columns, indexes",
        doc_md=doc_md,
        schedule=None,
        params={"regions": regions_param(settings, "The regions to check.")},
        tags=["meg-bi", "doctor"],
    ) as dag:
        DoctorOperator(task_id="examine", execution_timeout=timedelta(minutes=30), doc_md="The report is in its log.")
    return dag


def _job_table(jobs: tuple[Job, ...]) -> str:
    rows = [f"| `{job.name}` | {job.summary} | `{job.celery_task}` |" for job in jobs]
    return "\n".join(["| job | one document is | replaces MEG's task |", "| --- | --- | --- |", *rows])


def _failure_table() -> str:
    """The common messages with their hints, as `make docs` writes them."""
    return (include_dir() / "docs" / "failures.md").read_text().rstrip()


def _wait(hour: int) -> WaitUntilHourOperator:
    return WaitUntilHourOperator(
        task_id=f"wait_until_{hour:02}_00",
        hour=hour,
        doc_md=f"Waits until {hour:02}:00 (`BI_TIMEZONE`) on the day of the schedule; a later run does not wait.",
    )


def _params(cadence: Cadence, jobs: tuple[Job, ...], settings: Settings) -> dict[str, Param]:
    return {
        "jobs": jobs_param(jobs, "The jobs to run; the others are skipped."),
        "regions": regions_param(settings, "The regions to load; the others are skipped."),
        "period": Param(
            None,
            type=["null", "string"],
            title="Period",
            description=_PERIOD_HELP[cadence],
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Publish even if a slice shrinks by more than BI_MAX_SHRINK or to nothing, or if a newer "
            "one is live.",
        ),
        "dry_run": Param(
            False, type="boolean", title="Dry run", description="Read, stage and check, but do not publish."
        ),
    }


def jobs_param(jobs: tuple[Job, ...], description: str) -> Param:
    """The parameter `jobs` of a DAG, with all of them as its default."""
    return _names_param("Jobs", [job.name for job in jobs], description)


def regions_param(settings: Settings, description: str) -> Param:
    """The parameter `regions` of a DAG, with all of them as its default."""
    return _names_param("Regions", [*settings.regions], description)


def _names_param(title: str, names: list[str], description: str) -> Param:
    items = {"type": "string", "enum": names}
    return Param(names, type="array", items=items, examples=names, title=title, description=description)


def _job_group(job: Job, settings: Settings) -> TaskGroup:
    with TaskGroup(job.name, tooltip=f"{job.celery_task} in MEG. {job.summary}") as group:
        for region in settings.regions:
            _region_group(job, region, settings)
    return group


def _region_group(job: Job, region: str, settings: Settings) -> None:
    with TaskGroup(region, tooltip=f"{job.name} of region {region}, read through the connection meg_{region}."):
        plan = PlanOperator(
            task_id="plan", job=job, region=region, sql="list_forms.sql" if job.chunked else "", doc_md=_doc(job)
        )
        stage = StageOperator.partial(
            task_id="stage",
            sql=f"{job.name}.sql",
            max_active_tis_per_dag=settings.max_parallel_chunks,  # across all runs: a backfill may run several at once
            map_index_template="{{ task.map_label(dag_run, params.period) }}",
            doc_md=_doc(job),
        ).expand_kwargs(RequiredXComArg(plan))
        publish = PublishOperator(
            task_id="publish",
            load=RequiredXComArg(plan, XCOM_LOAD_KEY),
            outlets=[collection_asset(job), *([partitions_asset(job)] if SUPPORTS_ASSET_PARTITIONS else [])],
            doc_md=_doc(job),
        )
        stage >> publish


def collection_asset(job: Job) -> Asset:
    """The collection as an Airflow asset that each publish updates, so that other DAGs can be scheduled on it."""
    return Asset(name=job.name, uri=f"x-meg-bi://collections/{job.name}", group="meg-bi")


def partitions_asset(job: Job) -> Asset:
    """The collection as an asset whose events have a partition key, such as `eu|2026-10`.

    It is an asset of its own because an event with a partition key starts no DAG whose schedule is a plain asset.
    """
    return Asset(name=f"{job.name}{PARTITIONS_SUFFIX}", uri=f"x-meg-bi://partitions/{job.name}", group="meg-bi")


def _doc(job: Job) -> str:
    return f"Part of `{job.name}`, formerly `{job.celery_task}` in MEG. One document is: {job.summary}"
