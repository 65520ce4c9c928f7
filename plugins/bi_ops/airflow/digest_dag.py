"""Builds the DAG bi_digest, which sends the month's overview."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, AssetAny, Param

from bi_ops.airflow.dag_factory import RETRIES, collection_asset
from bi_ops.airflow.digest_operator import DigestOperator
from bi_ops.airflow.notifier import BiNotifier
from bi_ops.airflow.run_parameters import DIGEST_DAG_ID
from bi_ops.catalog.jobs import jobs_for
from bi_ops.catalog.periods import PERIOD_EXAMPLES, Cadence


def build_digest_dag(doc_md: str | None) -> DAG:
    """The DAG that sends each month's overview once every region has published the month.

    Args:
        doc_md: Its documentation in Airflow.
    """
    with DAG(
        dag_id=DIGEST_DAG_ID,
        description="Sends the month's overview once every region has published the month",
        doc_md=doc_md,
        # Any of them: with all, a region's event could complete another region's set, and the last one start no run.
        schedule=AssetAny(*map(collection_asset, jobs_for(Cadence.MONTHLY))),
        catchup=False,
        max_active_runs=1,
        default_args={**RETRIES, "execution_timeout": timedelta(minutes=10)},
        on_failure_callback=BiNotifier(),
        params={
            "period": Param(
                None,
                type=["null", "string"],
                title="Period",
                description=f"{PERIOD_EXAMPLES[Cadence.MONTHLY].capitalize()}; empty for the newest one that every "
                "region has published.",
            )
        },
        tags=["meg-bi", "digest"],
    ) as dag:
        DigestOperator(task_id="send", doc_md="Its log says which month was sent, or why none was.")
    return dag
