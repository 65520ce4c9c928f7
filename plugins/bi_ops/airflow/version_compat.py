"""Feature flags for the differences between the supported versions of Airflow, 3.0.6 and later."""

from __future__ import annotations

from importlib.metadata import version

from airflow import __version__
from packaging.version import Version

_AIRFLOW = Version(__version__)
_STANDARD_PROVIDER = Version(version("apache-airflow-providers-standard"))

SUPPORTS_UI_PAGES = Version("3.1") <= _AIRFLOW
"""Plugins can add pages to the navigation, for every user who is logged in."""
CALLBACKS_SEE_TASK_STATES = Version("3.1") <= _AIRFLOW
"""A DAG's callback can read the states of its tasks."""
SUPPORTS_ASSET_PARTITIONS = Version("3.3") <= _AIRFLOW
"""A task can add a partition key to its asset events."""
SUPPORTS_SHRINKING_MAPPED_TASKS = Version("3.3") <= _AIRFLOW
"""A cleared plan can return fewer stage tasks than before: https://github.com/apache/airflow/issues/48816."""
COUNTS_DEFERRED_TASKS = Version("3.3") <= _AIRFLOW
"""`max_active_tis_per_dagrun` counts a task that is deferred."""
CAN_SEE_PAUSED_DAGS = Version("3.2") <= _AIRFLOW and Version("1.17") <= _STANDARD_PROVIDER
"""TriggerDagRunOperator can fail when the DAG is paused; its run would otherwise wait until somebody unpauses it."""
RUNS_HAVE_NOTES = Version("1.12") <= _STANDARD_PROVIDER
"""TriggerDagRunOperator can add a note to the run."""
