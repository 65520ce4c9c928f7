"""What the supported versions of Airflow, from 3.0.6 on, differ in; asked here and nowhere else."""

from __future__ import annotations

from airflow import __version__
from packaging.version import Version

_AIRFLOW = Version(__version__)

SUPPORTS_UI_PAGES = Version("3.1") <= _AIRFLOW
"""Plugins may have pages in the navigation, open to every user who is logged in."""
CALLBACKS_SEE_TASK_STATES = Version("3.1") <= _AIRFLOW
"""A DAG's callback may ask how its tasks ended."""
SUPPORTS_SHRINKING_MAPPED_TASKS = Version("3.3") <= _AIRFLOW
"""A plan that is done again may give fewer stage tasks: https://github.com/apache/airflow/issues/48816."""
