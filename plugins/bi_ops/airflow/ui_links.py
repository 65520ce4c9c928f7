"""The URL of Airflow's UI."""

from __future__ import annotations

from airflow.configuration import conf


def base_url() -> str:
    """The UI's URL, without a trailing slash."""
    return str(conf.get("api", "base_url", fallback="")).rstrip("/")
