"""Where things are in Airflow's UI."""

from __future__ import annotations

from urllib.parse import quote

from airflow.configuration import conf


def ui() -> str:
    """The UI's address, without a slash at its end."""
    return str(conf.get("api", "base_url", fallback="")).rstrip("/")


def run_path(dag_id: str, run_id: str = "") -> str:
    """A DAG run's path within the UI; that of all its runs where none is named."""
    return f"/dags/{dag_id}/runs/{quote(run_id, safe='')}"
