"""The imports of a stage task in a new process, as on Celery and Kubernetes, compared with those of its two hooks."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from bench.measure import rounds
from bench.results import Ratio, Section, ratios
from dev.airflow import ROOT

_HOOKS = """
from airflow.sdk import DAG, Asset, Param, TaskGroup
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.mongo.hooks.mongo import MongoHook
from airflow.providers.postgres.hooks.postgres import PostgresHook
"""
_STAGE_TASK = """
import bi_ops.airflow.dag_factory
import bi_ops.airflow.connections, bi_ops.load.stage, bi_ops.load.staged_loads
"""
_TIMED = "import time; start = time.process_time()\n{}\nprint(time.process_time() - start)"


def run(deadline: float, max_rounds: int) -> Section:
    """Import both in turn, each in a new interpreter.

    Args:
        deadline: When to end, by `time.monotonic`.
        max_rounds: The maximum number of rounds.
    """
    hooks, stage_task = [], []
    for _ in rounds(max_rounds, deadline):
        hooks.append(_import_seconds(_HOOKS))
        stage_task.append(_import_seconds(_STAGE_TASK))
    section = Section("Imports of a stage task in a new process", ("imports", "CPU seconds"))
    for name, seconds in (("PostgresHook, MongoHook and what a DAG file imports", hooks), ("stage task", stage_task)):
        section.rows.append([name, f"{statistics.median(seconds):.2f}"])
    section.ratios = [Ratio("imports: stage task / both hooks", ratios(stage_task, hooks), max_goal=1.2)]
    return section


def _import_seconds(code: str) -> float:
    """Processor time of the imports; their files are in the disk's cache after the first round."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins"), "MEG_REGIONS": "eu"}
    command = [sys.executable, "-c", _TIMED.format(code)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(output.splitlines()[-1])
