"""The month as Airflow's documentation teaches it: one mapped task for ten forms, which appends their documents.

Airflow retries these tasks too, but a retry or another run appends the documents once more, and readers see each chunk
as it arrives. `bench_dlt` is the same with dlt in the task.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pendulum
from airflow.sdk import DAG, task

_FORMS_PER_TASK = 10
_RETRIES = {"retries": 2, "retry_delay": timedelta(minutes=1)}


def _query_parameters(period: str) -> dict[str, Any]:
    start = pendulum.from_format(period, "YYYY-MM")
    return {"period_start": start, "period_end": start.add(months=1), "previous_start": start.subtract(months=1)}


def _read_documents(form_ids: list[int], period: str) -> list[dict[str, Any]]:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    from bi_ops.catalog.sql_templates import render_sql

    parameters = {**_query_parameters(period), "chunks": [f"{{{','.join(map(str, form_ids))}}}"]}
    meg = PostgresHook("meg_eu")
    rows = meg.get_records(render_sql("monthly_submissions.sql"), parameters)
    names = [column[0] for column in meg.last_description or ()]
    documents = []
    for row in rows:
        values = (float(value) if isinstance(value, Decimal) else value for value in row)
        documents.append({"region": "eu", "period": period, **dict(zip(names, values, strict=True))})
    return documents


def _append_with_hook(documents: list[dict[str, Any]]) -> None:
    from airflow.providers.mongo.hooks.mongo import MongoHook

    with MongoHook("bi_mongo") as mongo:
        mongo.insert_many("bench_plain", documents)


def _append_with_dlt(documents: list[dict[str, Any]]) -> None:
    from airflow.providers.mongo.hooks.mongo import MongoHook

    from bench.dlt_append import append_documents

    with MongoHook("bi_mongo") as mongo:
        append_documents(lambda: iter([documents]), mongo.get_collection("bench_dlt"))


def _build_dag(dag_id: str, append: Callable[[list[dict[str, Any]]], None]) -> DAG:
    with DAG(
        dag_id,
        schedule=None,
        start_date=pendulum.datetime(2020, 1, 1),
        default_args=_RETRIES,
        params={"period": "2026-10"},
        doc_md=__doc__,
    ) as dag:

        @task
        def list_chunks(**context: Any) -> list[list[int]]:
            from airflow.providers.postgres.hooks.postgres import PostgresHook

            from bi_ops.catalog.sql_templates import render_sql

            parameters = _query_parameters(context["params"]["period"])
            ids = [row[0] for row in PostgresHook("meg_eu").get_records(render_sql("list_forms.sql"), parameters)]
            return [ids[first : first + _FORMS_PER_TASK] for first in range(0, len(ids), _FORMS_PER_TASK)]

        @task
        def load_chunk(form_ids: list[int], **context: Any) -> None:
            documents = _read_documents(form_ids, context["params"]["period"])
            if documents:
                append(documents)

        load_chunk.expand(form_ids=list_chunks())
    return dag


plain = _build_dag("bench_plain", _append_with_hook)
with_dlt = _build_dag("bench_dlt", _append_with_dlt)
