"""Airflow's task policy for tests: retries after a second, as many as TEST_RETRIES says."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any


def task_policy(task: Any) -> None:
    task.retry_delay = timedelta(seconds=1)
    task.max_retry_delay = timedelta(seconds=2)
    task.retries = min(task.retries, int(os.environ.get("TEST_RETRIES", "1")))
