"""Let the real scheduler run a DAG's last months: those it missed by catchup, those it has done once more."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from typing import Any

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dev.processes import StackError
from dev.show import console

_ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}


def catch_up(api: httpx.Client, dag_id: str, since: datetime, count: int, *, seconds: float = 1800) -> dict[str, str]:
    """Have the scheduler run what is scheduled since an instant, showing how far it is.

    Args:
        api: Airflow's REST API, logged in.
        dag_id: The DAG, paused or not.
        since: Where the first run's data interval starts.
        count: How many scheduled runs there will be.
        seconds: How long they may take.

    Returns:
        The final state, `success` or `failed`, of each run by its run id.

    Raises:
        StackError: The DAG does not appear, or its runs have not ended in time.
    """
    _wait_for_dag(api, dag_id)
    for run in _scheduled_runs(api, dag_id, since):
        if run["state"] in _ENDED:
            _call(api, "POST", f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/clear", json={"dry_run": False})
    _call(api, "PATCH", f"/dags/{dag_id}", json={"is_paused": False})
    return _follow(api, dag_id, since, count, seconds)


def _wait_for_dag(api: httpx.Client, dag_id: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while api.get(f"/dags/{dag_id}").status_code == httpx.codes.NOT_FOUND:
        problems = _call(api, "GET", "/importErrors")["import_errors"]
        if problems:
            raise StackError(f"{problems[0]['filename']} cannot be imported:\n{problems[0]['stack_trace']}")
        if time.monotonic() > deadline:
            raise StackError(f"Airflow did not find the DAG {dag_id} within {seconds:g} s.")
        time.sleep(0.5)


def _follow(api: httpx.Client, dag_id: str, since: datetime, count: int, seconds: float) -> dict[str, str]:
    deadline = time.monotonic() + seconds
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(dag_id, total=None)
        while True:
            runs = {run["dag_run_id"]: run["state"] for run in _scheduled_runs(api, dag_id, since)}
            tasks = [state for run_id in runs for state in _task_states(api, dag_id, run_id)]
            ended = sum(state in _ENDED for state in runs.values())
            progress.update(
                bar,
                description=f"{dag_id}: {ended} of {count} months, tasks",
                total=len(tasks) or None,
                completed=sum(state in _ENDED for state in tasks),
            )
            if ended >= count:
                return runs
            if time.monotonic() > deadline:
                raise StackError(f"{dag_id} did not end within {seconds:g} s: {runs}, tasks {dict(Counter(tasks))}.")
            time.sleep(1)


def _scheduled_runs(api: httpx.Client, dag_id: str, since: datetime) -> list[dict[str, Any]]:
    query = {"run_type": "scheduled", "run_after_gt": since.isoformat(), "order_by": "run_after", "limit": 100}
    runs: list[dict[str, Any]] = _call(api, "GET", f"/dags/{dag_id}/dagRuns", params=query)["dag_runs"]
    return runs


def _task_states(api: httpx.Client, dag_id: str, run_id: str) -> list[str | None]:
    states: list[str | None] = []
    while True:
        query = {"limit": 100, "offset": len(states)}
        page = _call(api, "GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params=query)
        states += [instance["state"] for instance in page["task_instances"]]
        if not page["task_instances"] or len(states) >= page["total_entries"]:
            return states


def _call(api: httpx.Client, method: str, path: str, **how: Any) -> dict[str, Any]:
    answer = api.request(method, path, **how)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found
