"""The old way, for comparison only: Celery tasks over a Redis, each of ten forms, appending, with no guard."""

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

_AT_ONCE = 2 * (os.cpu_count() or 2)
"""What the embedded Airflow does at once."""
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

app = celery.Celery("old_way", broker=os.environ.get("OLD_BROKER"), backend=os.environ.get("OLD_BROKER"))


@app.task
def aggregate_forms(form_ids: list[int]) -> int:
    """Ten forms of a month, added to whatever is there."""
    with psycopg.connect(os.environ["OLD_MEG"]) as connection, connection.cursor() as cursor:
        found = cursor.execute(_SQL, [form_ids]).fetchall()
        names = [column.name for column in cursor.description or ()]
    rows = [{"region": REGION, "period": _PERIOD, **dict(zip(names, row, strict=True))} for row in found]
    with MongoClient[Any](os.environ["OLD_MONGO"]) as client:
        client["bi"]["old_monthly_submissions"].insert_many(rows)
    return len(rows)


@contextmanager
def _working(servers: embedded_stack.DatabaseServers, database: str) -> Iterator[celery.Celery]:
    needed = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": ""}
    with celery_workers.redis_broker(WORK_DIR, needed) as broker:
        settings = {
            "OLD_BROKER": broker["AIRFLOW__CELERY__BROKER_URL"],
            "OLD_MEG": conninfo(servers.postgres, database),
            "OLD_MONGO": mongo_uri(servers.mongo),
        }
        words = ["-A", "bench.celery_baseline", "worker", "--concurrency", str(_AT_ONCE), "--loglevel", "INFO"]
        log = WORK_DIR / "logs" / "old-way.log"
        log.unlink(missing_ok=True)
        worker = Service(
            "the old way's worker",
            [sys.executable, "-m", "celery", *words],
            log=log,
            environment=child_env(WORK_DIR, settings),
        )
        try:
            worker.wait_until(lambda: " ready." in log.read_text(errors="replace"), seconds=60)
            app.conf.update(broker_url=settings["OLD_BROKER"], result_backend=settings["OLD_BROKER"])
            yield app
        finally:
            stop(worker)


def _month(servers: embedded_stack.DatabaseServers, database: str) -> None:
    """A month, from the first task sent to the last one done."""
    with servers.postgres.connect(database) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM megforms_auditform ORDER BY id")]
    sent = celery.group(aggregate_forms.s(ids[first : first + 10]) for first in range(0, len(ids), 10))()
    documents = sum(sent.get(timeout=600))
    if documents != len(ids):
        raise RuntimeError(f"{documents} documents arrived, not {len(ids)}")


def run(servers: embedded_stack.DatabaseServers, deadline: float, forms: int, max_rounds: int) -> Section:
    """The same month by Celery and by Airflow.

    Args:
        servers: The databases.
        deadline: When the last of them is to end.
        forms: How many forms there are.
        max_rounds: How many times.
    """
    database = seed(servers, forms)
    drop_databases(servers)
    with _working(servers, database):
        measure(_month, servers, database)  # warm
        old = [measure(_month, servers, database).seconds for _ in range(max_rounds)]
    with servers.mongo_admin.client() as client:
        left = client[embedded_stack.LIVE_DATABASE]["old_monthly_submissions"].estimated_document_count()
    with run_airflow(servers, {REGION: database}) as airflow:
        airflow.load_months(_PERIOD)  # warm
        ours = [airflow.load_months(_PERIOD) for _ in rounds(max_rounds, deadline)]
        tasks = airflow.tasks()
    with servers.mongo_admin.client() as client:
        right = client[embedded_stack.LIVE_DATABASE][JOB].estimated_document_count()
    section = Section(f"The old way: a month of {forms:,} forms", ("way", "seconds", "runs", "documents after them"))
    section.rows = [
        [f"Celery, {forms // 10} tasks of ten forms", f"{statistics.median(old):.1f}", str(len(old) + 1), f"{left:,}"],
        [f"Airflow, {tasks} stage tasks", f"{statistics.median(ours):.1f}", str(len(ours) + 1), f"{right:,}"],
    ]
    section.figures = [Ratio(f"a month of {forms:,} forms: Airflow / Celery", ratios(ours, old[: len(ours)]))]
    return section
