"""Where the seconds go between a click on Trigger and the published month, compared with a DAG of empty tasks."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bench.airflow_instance import AirflowInstance, run_airflow
from bench.helpers import REGION, drop_databases
from bench.measure import rounds
from bench.results import Ratio, Section, ratios
from bench.scaling import seed
from dev import embedded_stack
from dev.run_dags import api_request

TITLE = "From the click to the published month"
FORMS = 300
PARTS = ("scheduler", "task start", "task")
"""What each step's seconds are spent on: until it is queued, until its process calls the API, and until it ends."""
_STEPS = ("gate", "plan", "stage", "publish")
_SHADES = (("#c6c6c6", "#8f8f8f", "#4d4d4d"), ("#bcd7ef", "#72aad8", "#0072b2"))
_COLOURS = [colour for step in range(len(_STEPS)) for colour in _SHADES[step % 2]]
"""Each step's parts grow darker; steps next to each other differ in hue."""
_PERIOD = "2026-10"
_PRODUCT, _EMPTY = "bi_monthly", "bench_empty_shape"
_NAMES = {_PRODUCT: "MEG BI", _EMPTY: "empty tasks"}

Seconds = dict[tuple[str, str], float]
"""By step and part; their sum is the time of the whole run."""


def run(servers: embedded_stack.DatabaseServers, deadline: float, max_rounds: int) -> Section:
    """Load a month of one job and region, and run as many empty tasks, in turn.

    Args:
        servers: The databases.
        deadline: When to end, by `time.monotonic`.
        max_rounds: The maximum number of rounds.
    """
    runs: dict[str, list[Seconds]] = {_PRODUCT: [], _EMPTY: []}
    with run_airflow(servers, {REGION: seed(servers, FORMS)}, _EMPTY) as airflow:
        _run_product(servers, airflow)  # warm
        tasks = airflow.count_stage_tasks()
        airflow.run_dag(_EMPTY, {"tasks": tasks})
        for _ in rounds(max_rounds, deadline):
            runs[_PRODUCT].append(_run_product(servers, airflow))
            airflow.run_dag(_EMPTY, {"tasks": tasks})
            runs[_EMPTY].append(_read_seconds(airflow, _EMPTY))
    section = Section(
        f"{TITLE}: {FORMS} forms, {tasks} stage tasks",
        ("step", "part", *(f"{_NAMES[name]}, s" for name in runs)),
    )
    for step, part in itertools.product(_STEPS, PARTS):
        medians = (statistics.median(seconds[step, part] for seconds in of_dag) for of_dag in runs.values())
        section.rows.append([step, part, *(f"{median:.2f}" for median in medians)])
    totals = {name: [sum(seconds.values()) for seconds in of_dag] for name, of_dag in runs.items()}
    section.ratios = [
        Ratio(
            f"click to published, {FORMS} forms: MEG BI / empty tasks",
            ratios(totals[_PRODUCT], totals[_EMPTY]),
            max_goal=1.5,
            explanation="each task connects to two databases, reads and writes; an empty one does none of this",
        )
    ]
    return section


def chart_spec(section: Section) -> dict[str, Any]:
    """A Vega-Lite chart of the section's table: a bar for each DAG, of each step's parts one after the other."""
    columns = [name.removesuffix(", s") for name in section.columns[2:]]
    values = [
        {"dag": dag, "part": f"{step}: {part}", "order": order, "seconds": float(seconds)}
        for order, (step, part, *cells) in enumerate(section.rows)
        for dag, seconds in zip(columns, cells, strict=True)
    ]
    parts = [f"{step}: {part}" for step, part, *_ in section.rows]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": {"text": section.title, "anchor": "start"},
        "data": {"values": values},
        "width": 620,
        "height": {"step": 46},
        "background": "white",
        "mark": "bar",
        "encoding": {
            "y": {"field": "dag", "type": "nominal", "sort": None, "title": None},
            "x": {"field": "seconds", "type": "quantitative", "title": "seconds"},
            "color": {
                "field": "part",
                "type": "nominal",
                "sort": parts,
                "title": None,
                "scale": {"domain": parts, "range": _COLOURS},
                "legend": {"columns": len(_STEPS), "orient": "bottom", "labelLimit": 0},
            },
            "order": {"field": "order", "type": "quantitative"},
        },
    }


def _run_product(servers: embedded_stack.DatabaseServers, airflow: AirflowInstance) -> Seconds:
    drop_databases(servers)
    airflow.load_months(_PERIOD)
    return _read_seconds(airflow, _PRODUCT)


def _read_seconds(airflow: AirflowInstance, dag_id: str) -> Seconds:
    """The seconds of a DAG's last run. A step begins where the one before ends, and is that of its last task to end."""
    [run_] = api_request(airflow.api, "GET", f"/dags/{dag_id}/dagRuns", params={"order_by": "-run_after", "limit": 1})[
        "dag_runs"
    ]
    path = f"/dags/{dag_id}/dagRuns/{run_['dag_run_id']}/taskInstances"
    tasks = api_request(airflow.api, "GET", path, params={"limit": 200})["task_instances"]
    seconds: Seconds = {}
    before = _instant(run_["queued_at"])
    for step in _STEPS:
        of_step = [task for task in tasks if _step(task) == step and task["state"] == "success"]
        instants = _instants(of_step)
        for part, end in zip(PARTS, instants, strict=True):
            seconds[step, part] = max(0.0, end - before)
            before = max(before, end)
    return seconds


def _instants(tasks: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """When the first of a step's tasks is queued and starts, and when the last one ends."""
    queued, started = (min(_instant(task[name]) for task in tasks) for name in ("queued_when", "start_date"))
    return queued, started, max(_instant(task["end_date"]) for task in tasks)


def _step(task: Mapping[str, Any]) -> str:
    """The step of a task: the end of its id, in the task group of its job and region."""
    return str(task["task_id"]).rpartition(".")[2]


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
