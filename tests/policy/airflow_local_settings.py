"""Airflow's own hook for an installation's policy: here, retries that do not keep a test waiting."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any


def task_policy(task: Any) -> None:
    task.retry_delay = timedelta(seconds=1)
    task.max_retry_delay = timedelta(seconds=2)
    task.retries = min(task.retries, int(os.environ.get("TEST_RETRIES", "1")))
