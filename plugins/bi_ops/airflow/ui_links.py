"""The address of Airflow's UI."""

from __future__ import annotations

from airflow.configuration import conf


def base_url() -> str:
    """The UI's address, without a slash at its end."""
    return str(conf.get("api", "base_url", fallback="")).rstrip("/")
