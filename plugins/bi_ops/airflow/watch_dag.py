"""Builds the DAG bi_watch, which reports late slices."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

from bi_ops.airflow.dag_factory import RETRIES
from bi_ops.airflow.notifier import BiNotifier
from bi_ops.airflow.watch_operator import WatchOperator
from bi_ops.settings import Settings


def build_watch_dag(doc_md: str | None) -> DAG:
    """The DAG that reports, every hour, which slices became late and which have been published since.

    Args:
        doc_md: Its documentation in Airflow.
    """
    settings = Settings.from_env()
    with DAG(
        dag_id="bi_watch",
        description="Notifies of slices that are late, once each, and once each when they are published",
        doc_md=doc_md,
        schedule=CronTriggerTimetable("0 * * * *", timezone=settings.timezone),
        start_date=settings.start_datetime,
        catchup=False,
        max_active_runs=1,
        default_args={**RETRIES, "execution_timeout": timedelta(minutes=10)},
        on_failure_callback=BiNotifier(),
        tags=["meg-bi", "watch"],
    ) as dag:
        WatchOperator(task_id="watch", doc_md="Its log shows the notification, or why it sent none.")
    return dag
