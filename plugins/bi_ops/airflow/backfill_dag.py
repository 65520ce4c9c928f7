"""Builds the DAG bi_backfill: find, then load or audit one period at a time, then report."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param, XComArg
from airflow.timetables.trigger import CronTriggerTimetable

from bi_ops.airflow.backfill_operators import (
    XCOM_AUDITS_KEY,
    AuditOperator,
    BackfillReportOperator,
    FindSlicesOperator,
)
from bi_ops.airflow.dag_factory import RETRIES, jobs_param, regions_param
from bi_ops.airflow.notifier import BiNotifier
from bi_ops.airflow.run_parameters import BACKFILL_DAG_ID
from bi_ops.airflow.version_compat import CAN_SEE_PAUSED_DAGS, COUNTS_DEFERRED_TASKS
from bi_ops.catalog.jobs import JOBS
from bi_ops.catalog.periods import PERIOD_EXAMPLES, Cadence
from bi_ops.settings import Settings

_AFTER_THE_NIGHT = "0 6 * * *"
_POLL_SECONDS = 10


def build_backfill_dag(doc_md: str | None) -> DAG:
    """The DAG that loads what is missing; triggered manually, and every day where `BI_SELF_HEAL` is on.

    Args:
        doc_md: Its documentation in Airflow.
    """
    settings = Settings.from_env()
    with DAG(
        dag_id=BACKFILL_DAG_ID,
        description="Loads the slices that should be published and are not, or compares published months with MEG",
        doc_md=doc_md,
        schedule=CronTriggerTimetable(_AFTER_THE_NIGHT, timezone=settings.timezone) if settings.self_heal else None,
        start_date=settings.start_datetime,
        catchup=False,
        max_active_runs=1,
        default_args=RETRIES,
        on_failure_callback=BiNotifier(),
        params=_params(settings),
        tags=["meg-bi", "backfill"],
    ) as dag:
        find = FindSlicesOperator(task_id="find", doc_md="Its log lists what is missing, and why something cannot be.")
        load = TriggerDagRunOperator.partial(
            task_id="load",
            logical_date=None,
            wait_for_completion=True,
            reset_dag_run=True,  # when this task is cleared
            deferrable=COUNTS_DEFERRED_TASKS,  # else all periods would be triggered at once
            poke_interval=_POLL_SECONDS,
            retries=0,  # the tasks of the run that it waits for have been retried
            max_active_tis_per_dagrun=1,
            map_index_template="{{ task.conf['period'] or 'now' }}: {{ task.conf['jobs'] | join(', ') }}",
            doc_md="Triggers the DAG of one period for what is missing, and waits for it; the newest period first.",
            **_trigger_options(),
        ).expand_kwargs(find.output)
        list_audits = PythonOperator(  # Airflow maps over the return value of a task only
            task_id="list_audits",
            python_callable=list,
            op_args=[XComArg(find, key=XCOM_AUDITS_KEY)],
            doc_md="The published slices to compare, by period; empty unless `dry_run` is on and `only_missing` off.",
        )
        audit = AuditOperator.partial(
            task_id="audit",
            max_active_tis_per_dagrun=1,
            map_index_template="{{ task.map_label }}",
            doc_md="Compares the published slices of one period with MEG, and publishes nothing.",
        ).expand(slices=list_audits.output)
        report = BackfillReportOperator(
            task_id="report",
            audits=audit.output,
            trigger_rule="all_done",
            execution_timeout=timedelta(minutes=10),
            doc_md="Its log says what was loaded or differs, and what is still missing.",
        )
        [load, audit] >> report
    return dag


def _trigger_options() -> dict[str, Any]:
    return {"fail_when_dag_is_paused": True} if CAN_SEE_PAUSED_DAGS else {}


def _params(settings: Settings) -> dict[str, Param]:
    def month(title: str, default: str) -> Param:
        description = f"{PERIOD_EXAMPLES[Cadence.MONTHLY].capitalize()}; empty for {default}."
        return Param(None, type=["null", "string"], title=title, description=description)

    return {
        "jobs": jobs_param(JOBS, "The jobs to load."),
        "regions": regions_param(settings, "The regions to load."),
        "from": month("From", "the month of BI_START_DATE"),
        "to": month("To", "the last one that has ended"),
        "only_missing": Param(
            True,
            type="boolean",
            title="Only missing",
            description="Load only what is not published. Off: load again what is.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Load nothing: list what is missing or, with Only missing off, which published months differ "
            "from what MEG says today.",
        ),
    }
