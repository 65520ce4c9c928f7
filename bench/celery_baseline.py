"""The Celery baseline, for comparison only: tasks of ten forms that append their documents, without any guard."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import celery
import psycopg
from pymongo import MongoClient

from bench.airflow_instance import JOB, WORK_DIR, run_airflow
from bench.helpers import REGION, conninfo, drop_databases, mongo_uri
from bench.measure import measure, rounds
from bench.results import Ratio, Section, ratios
from bench.scaling import seed
from dev import celery_workers, embedded_stack
from dev.processes import Service, child_env, stop

_CONCURRENCY = 2 * (os.cpu_count() or 2)
"""As many tasks at once as the embedded Airflow runs."""
_PERIOD = "2026-10"
_SQL = """
SELECT
    f.id AS form_id, f.name AS form_name, i.name AS institution_name,
    count(o.id) AS submissions, count(DISTINCT s.auditor_id) AS submitters
FROM megforms_auditform AS f
JOIN megforms_institution AS i ON i.id = f.institution_id
LEFT JOIN megforms_auditsession AS s
    ON s.form_id = f.id AND s.submitted_at >= '2026-10-01' AND s.submitted_at < '2026-11-01' AND s.deleted_at IS NULL
LEFT JOIN megforms_observation AS o ON o.session_id = s.id AND o.deleted_at IS NULL
WHERE f.id = ANY(%s)
GROUP BY f.id, f.name, i.name
"""

app = celery.Celery("celery_baseline", broker=os.environ.get("OLD_BROKER"), backend=os.environ.get("OLD_BROKER"))


@app.task
def aggregate_forms(form_ids: list[int]) -> int:
    """Append a month's documents of ten forms; returns their number."""
    with psycopg.connect(os.environ["OLD_MEG"]) as connection, connection.cursor() as cursor:
        rows = cursor.execute(_SQL, [form_ids]).fetchall()
        names = [column.name for column in cursor.description or ()]
    documents = [{"region": REGION, "period": _PERIOD, **dict(zip(names, row, strict=True))} for row in rows]
    with MongoClient[Any](os.environ["OLD_MONGO"]) as client:
        client["bi"]["old_monthly_submissions"].insert_many(documents)
    return len(documents)


@contextmanager
def _run_worker(servers: embedded_stack.DatabaseServers, database: str) -> Iterator[celery.Celery]:
    env = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": ""}  # the result backend is not used
    with celery_workers.redis_broker(WORK_DIR, env) as broker:
        settings = {
            "OLD_BROKER": broker["AIRFLOW__CELERY__BROKER_URL"],
            "OLD_MEG": conninfo(servers.postgres, database),
            "OLD_MONGO": mongo_uri(servers.mongo),
        }
        options = ["-A", "bench.celery_baseline", "worker", "--concurrency", str(_CONCURRENCY), "--loglevel", "INFO"]
        log = WORK_DIR / "logs" / "celery-baseline.log"
        log.unlink(missing_ok=True)
        worker = Service(
            "the Celery worker",
            [sys.executable, "-m", "celery", *options],
            log=log,
            environment=child_env(WORK_DIR, settings),
        )
        try:
            worker.wait_until(lambda: " ready." in log.read_text(errors="replace"), seconds=60)
            app.conf.update(broker_url=settings["OLD_BROKER"], result_backend=settings["OLD_BROKER"])
            yield app
        finally:
            stop(worker)


def _load_month(servers: embedded_stack.DatabaseServers, database: str) -> None:
    """Load a month, from sending the first task to the end of the last one."""
    with servers.postgres.connect(database) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM megforms_auditform ORDER BY id")]
    group = celery.group(aggregate_forms.s(ids[first : first + 10]) for first in range(0, len(ids), 10))()
    documents = sum(group.get(timeout=600))
    if documents != len(ids):
        raise RuntimeError(f"{documents} documents were inserted; expected {len(ids)}")


def run(servers: embedded_stack.DatabaseServers, deadline: float, forms: int, max_rounds: int) -> Section:
    """Load the same month with Celery and with Airflow.

    Args:
        servers: The databases.
        deadline: When to end, by `time.monotonic`.
        forms: The number of forms.
        max_rounds: The maximum number of rounds.
    """
    database = seed(servers, forms)
    drop_databases(servers)
    with _run_worker(servers, database):
        measure(_load_month, servers, database)  # warm
        celery_seconds = [measure(_load_month, servers, database).seconds for _ in range(max_rounds)]
    with servers.mongo_admin.client() as client:
        celery_documents = client[embedded_stack.LIVE_DATABASE]["old_monthly_submissions"].estimated_document_count()
    with run_airflow(servers, {REGION: database}) as airflow:
        airflow.load_months(_PERIOD)  # warm
        airflow_seconds = [airflow.load_months(_PERIOD) for _ in rounds(max_rounds, deadline)]
        tasks = airflow.count_stage_tasks()
    with servers.mongo_admin.client() as client:
        airflow_documents = client[embedded_stack.LIVE_DATABASE][JOB].estimated_document_count()
    section = Section(
        f"Celery baseline: a month of {forms:,} forms", ("system", "seconds", "runs", "documents afterwards")
    )
    section.rows = [
        [
            f"Celery, {forms // 10} tasks of ten forms",
            f"{statistics.median(celery_seconds):.1f}",
            str(len(celery_seconds) + 1),
            f"{celery_documents:,}",
        ],
        [
            f"Airflow, {tasks} stage tasks",
            f"{statistics.median(airflow_seconds):.1f}",
            str(len(airflow_seconds) + 1),
            f"{airflow_documents:,}",
        ],
    ]
    section.ratios = [
        Ratio(
            f"a month of {forms:,} forms: Airflow / Celery",
            ratios(airflow_seconds, celery_seconds[: len(airflow_seconds)]),
        )
    ]
    return section
