"""Paths within Airflow's UI, to which messages and the reports page link."""

from __future__ import annotations

from datetime import datetime, timezone
from urllib.parse import quote, urlencode


def dag_run_path(dag_id: str, run_id: str = "") -> str:
    """A DAG run's path within the UI; that of all its runs where none is named."""
    return f"/dags/{dag_id}/runs/{quote(run_id, safe='')}"


def due_runs_path(dag_id: str, run_after: datetime) -> str:
    """The path of the list of the DAG's runs that were due at an instant, whatever their ids; Airflow 3.0 lists all."""
    instant = run_after.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"/dags/{dag_id}/runs?{urlencode({'run_after_gte': instant, 'run_after_lte': instant})}"


def trigger_path(dag_id: str) -> str:
    """The path of the DAG, whose button opens the trigger form: no address of Airflow opens it or fills it in."""
    return f"/dags/{quote(dag_id, safe='')}"
