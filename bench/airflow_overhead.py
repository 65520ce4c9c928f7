"""Airflow's overhead: the load's tasks compared with empty tasks, and its DAG file with an empty one."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from bench.airflow_instance import JOB, WORK_DIR, run_airflow
from bench.measure import rounds
from bench.results import Ratio, Section, ratios
from dev import demo_meg, embedded_stack
from dev.airflow import ROOT
from dev.processes import child_env

_FORMS = 2_320
"""Some of them are archived; the others make 200 chunks of ten."""
_DATABASE = "bench_chunks"
_MONTH = "2026-10"
_EMPTY_DAG = """
from airflow.providers.common.compat.sdk import BaseNotifier, BaseOperator, BaseOperatorLink
from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import DAG, Asset, Param, TaskGroup
from airflow.sdk.definitions.xcom_arg import PlainXComArg
from airflow.timetables.interval import CronDataIntervalTimetable

with DAG("empty"):
    pass
"""
"""Imports what the package imports from Airflow, and defines no task."""


def run(servers: embedded_stack.DatabaseServers, deadline: float, max_rounds: int) -> Section:
    """Compare a month of 200 chunks, each a task, with 200 empty tasks, in turn on one Airflow.

    Args:
        servers: The databases.
        deadline: When to end, by `time.monotonic`.
        max_rounds: The maximum number of rounds.
    """
    demo = demo_meg.DemoConfig(seed=1, forms=_FORMS, until=date(2026, 11, 1), months=3)
    demo_meg.seed_database(servers.postgres, _DATABASE, demo)
    parsing = _parsing_ratio(max_rounds)
    month_seconds, empty_seconds = [], []
    with run_airflow(servers, {"eu": _DATABASE}, BI_MAX_MAPPED_TASKS="256") as airflow:
        airflow.run_dag("bench_empty", {"tasks": 8})  # warm
        for _ in rounds(max_rounds, deadline):
            month_seconds.append(airflow.load_months(_MONTH))
            tasks = airflow.count_stage_tasks()
            empty_seconds.append(airflow.run_dag("bench_empty", {"tasks": tasks}))
    section = Section(f"Airflow overhead: {tasks} tasks on LocalExecutor", ("run", "seconds", "seconds a task"))
    for name, seconds in ((f"{JOB}, a chunk a task", month_seconds), ("empty tasks", empty_seconds)):
        median = statistics.median(seconds)
        section.rows.append([name, f"{median:.1f}", f"{median / tasks:.2f}"])
    explanation = "each task connects to two databases, reads and writes; an empty one does none of this"
    section.ratios = [
        Ratio(
            f"{tasks} chunks as tasks / as many empty tasks",
            ratios(month_seconds, empty_seconds),
            max_goal=1.15,
            explanation=explanation,
        ),
        parsing,
    ]
    return section


def _parsing_ratio(repetitions: int) -> Ratio:
    """Time a process that imports Airflow and one DAG file, as each process that parses it does once."""
    empty = WORK_DIR / "empty_dag.py"
    empty.write_text(_EMPTY_DAG)
    seconds = [[_time_script(file) for file in (ROOT / "dags" / "bi_monthly.py", empty)] for _ in range(repetitions)]
    package, baseline = ([pair[number] for pair in seconds] for number in (0, 1))
    return Ratio("parsing bi_monthly / an empty DAG with the same imports", ratios(package, baseline), max_goal=1.3)


def _time_script(file: Path) -> float:
    env = {
        "AIRFLOW_HOME": str(WORK_DIR / "airflow"),
        "PYTHONPATH": str(ROOT / "plugins"),
    }
    began = time.perf_counter()
    subprocess.run([sys.executable, str(file)], env=child_env(WORK_DIR, env), check=True, capture_output=True)
    return time.perf_counter() - began
