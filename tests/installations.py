"""Airflow made anew over the tests' databases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pendulum

from dev import airflow
from dev.stack import Databases
from tests.conftest import ROOT

TRIGGERED_ONLY = {
    "BI_AGGREGATE": "1",
    "BI_START_DATE": pendulum.now().add(months=2).to_date_string(),
    "MEG_REGIONS": "eu",
}
"""The region eu, and no run but those that a test triggers."""
QUICK_TO_NOTICE = {
    "PYTHONPATH": str(ROOT / "tests" / "policy"),
    "TEST_RETRIES": "6",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "3",
}
"""What died is noticed within seconds, not minutes, and tried again as often as in production."""


def new_airflow(servers: Databases, stack: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of an Airflow whose metadata database is new."""
    if servers.postgres.has(airflow.DATABASE):
        with servers.postgres.connect() as admin:
            admin.execute(f"DROP DATABASE {airflow.DATABASE} WITH (FORCE)")
    environment = airflow.environment(stack, servers.postgres, servers.secret, settings)
    airflow.migrate(stack, servers.postgres, servers.secret, environment)
    return environment
