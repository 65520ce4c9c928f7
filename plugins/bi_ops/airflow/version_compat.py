"""Feature flags for the differences between the supported versions of Airflow, 3.0.6 and later."""

from __future__ import annotations

from airflow import __version__
from packaging.version import Version

_AIRFLOW = Version(__version__)

SUPPORTS_UI_PAGES = Version("3.1") <= _AIRFLOW
"""Plugins can add pages to the navigation, for every user who is logged in."""
CALLBACKS_SEE_TASK_STATES = Version("3.1") <= _AIRFLOW
"""A DAG's callback can read the states of its tasks."""
SUPPORTS_SHRINKING_MAPPED_TASKS = Version("3.3") <= _AIRFLOW
"""A cleared plan can return fewer stage tasks than before: https://github.com/apache/airflow/issues/48816."""
