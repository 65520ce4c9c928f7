"""Airflow's share of a month: our tasks against empty ones, and our DAG file against an empty one."""

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

CHUNKS = 200
_FORMS = 2_320
"""Of which some are archived: what is left are 200 chunks of ten."""
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
"""What the package imports of Airflow to make a DAG, and none made."""


def run(servers: embedded_stack.DatabaseServers, deadline: float, max_rounds: int) -> Section:
    """A month of 200 chunks, each a task, and 200 empty tasks, in turn on one Airflow.

    Args:
        servers: The databases.
        deadline: When the last of them is to end.
        max_rounds: How many times.
    """
    demo = demo_meg.DemoConfig(seed=1, forms=_FORMS, until=date(2026, 11, 1), months=3)
    demo_meg.seed_database(servers.postgres, _DATABASE, demo)
    parsing = _parsing(max_rounds)
    months, empties = [], []
    with run_airflow(servers, {"eu": _DATABASE}, BI_MAX_MAPPED_TASKS="256") as airflow:
        airflow.seconds_of("bench_empty", {"tasks": 8})  # warm
        for _ in rounds(max_rounds, deadline):
            months.append(airflow.load_months(_MONTH))
            tasks = airflow.tasks()
            empties.append(airflow.seconds_of("bench_empty", {"tasks": tasks}))
    section = Section(f"Airflow's share: {tasks} tasks on LocalExecutor", ("run", "seconds", "seconds a task"))
    for name, seconds in ((f"{JOB}, a chunk a task", months), ("empty tasks", empties)):
        median = statistics.median(seconds)
        section.rows.append([name, f"{median:.1f}", f"{median / tasks:.2f}"])
    why = "each task connects to two databases, reads and writes; empty ones do nothing of it"
    section.figures = [
        Ratio(
            f"{tasks} chunks as tasks / as many empty tasks", ratios(months, empties), max_goal=1.15, explanation=why
        ),
        parsing,
    ]
    return section


def _parsing(times: int) -> Ratio:
    """A process that imports Airflow and the DAG file, and nothing else, as each process that parses it does once."""
    empty = WORK_DIR / "empty_dag.py"
    empty.write_text(_EMPTY_DAG)
    found = [[_seconds_to_run(file) for file in (ROOT / "dags" / "bi_monthly.py", empty)] for _ in range(times)]
    ours, theirs = ([each[number] for each in found] for number in (0, 1))
    return Ratio("parsing bi_monthly / an empty DAG with the same imports", ratios(ours, theirs), max_goal=1.3)


def _seconds_to_run(file: Path) -> float:
    home = {
        "AIRFLOW_HOME": str(WORK_DIR / "airflow"),
        "PYTHONPATH": str(ROOT / "plugins"),
    }
    began = time.perf_counter()
    subprocess.run([sys.executable, str(file)], env=child_env(WORK_DIR, home), check=True, capture_output=True)
    return time.perf_counter() - began
