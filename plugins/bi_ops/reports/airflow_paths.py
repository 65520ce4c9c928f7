"""Paths within Airflow's UI, to which messages and the reports page link."""

from __future__ import annotations

from urllib.parse import quote


def dag_run_path(dag_id: str, run_id: str = "") -> str:
    """A DAG run's path within the UI; that of all its runs where none is named."""
    return f"/dags/{dag_id}/runs/{quote(run_id, safe='')}"
