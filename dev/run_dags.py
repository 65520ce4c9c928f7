"""Has Airflow's scheduler run DAGs, by catchup or by a trigger, and waits for them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dev.api_client import ApiClient
from dev.console import console
from dev.processes import StackError

END_STATES = {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass(frozen=True)
class RunRequest:
    """The DAG runs of one DAG to wait for.

    Attributes:
        dag_id: The DAG, paused or not.
        scheduled_after: Selects scheduled runs with a later `run_after`; None for a triggered run.
        count: The number of runs.
        triggered: The run to trigger, as its id and its parameters.
    """

    dag_id: str
    scheduled_after: datetime | None = None
    count: int = 1
    triggered: tuple[str, dict[str, Any]] | None = None


def run_and_wait(api: ApiClient, *requests: RunRequest, seconds: float = 1800) -> dict[str, dict[str, str]]:
    """Start these runs, clear those that have ended, and wait for them with a progress bar.

    Args:
        api: Airflow's REST API, logged in.
        *requests: The runs.
        seconds: The time limit.

    Returns:
        The final state, `success` or `failed`, of each run, by DAG and run id.

    Raises:
        StackError: A DAG does not appear, its runs do not end in time, or Airflow's API does not answer.
    """
    deadline = time.monotonic() + seconds
    with api.retrying_until(deadline):
        for request in requests:
            wait_for_dag(api, request.dag_id)
            _start(api, request)
        return _follow(api, requests, deadline)


def _start(api: ApiClient, request: RunRequest) -> None:
    runs = _get_runs(api, request)
    for run in runs:
        if run["state"] in END_STATES:
            api_request(
                api, "POST", f"/dags/{request.dag_id}/dagRuns/{run['dag_run_id']}/clear", json={"dry_run": False}
            )
    if request.triggered and not runs:
        run_id, conf = request.triggered
        trigger(api, request.dag_id, run_id, conf)
    api_request(api, "PATCH", f"/dags/{request.dag_id}", json={"is_paused": False})


def trigger(api: ApiClient, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """Trigger a run with this id, unless an earlier call whose answer was lost has done so, and return it.

    Raises:
        StackError: Airflow refused it.
    """
    body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
    response = api.post(f"/dags/{dag_id}/dagRuns", json=body)
    if response.status_code == httpx.codes.CONFLICT:
        return api_request(api, "GET", f"/dags/{dag_id}/dagRuns/{run_id}")
    return _content(response)


def wait_for_dag(api: ApiClient, dag_id: str, seconds: float = 600) -> None:
    """Wait until Airflow has parsed a DAG.

    Raises:
        StackError: It cannot be imported, or does not appear in time.
    """
    deadline = time.monotonic() + seconds
    while api.get(f"/dags/{dag_id}").status_code == httpx.codes.NOT_FOUND:
        problems = api_request(api, "GET", "/importErrors")["import_errors"]
        if problems:
            raise StackError(f"{problems[0]['filename']} cannot be imported:\n{problems[0]['stack_trace']}")
        if time.monotonic() > deadline:
            raise StackError(f"Airflow did not find the DAG {dag_id} within {seconds:g} s.")
        time.sleep(0.5)


def _follow(api: ApiClient, requests: tuple[RunRequest, ...], deadline: float) -> dict[str, dict[str, str]]:
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = {request.dag_id: progress.add_task(request.dag_id, total=None) for request in requests}
        while True:
            states: dict[str, dict[str, str]] = {}
            for request in requests:
                runs = {run["dag_run_id"]: run["state"] for run in _get_runs(api, request)}
                tasks = [state for run_id in runs for state in _get_task_states(api, request.dag_id, run_id)]
                ended = sum(state in END_STATES for state in tasks)
                progress.update(bars[request.dag_id], total=len(tasks) or None, completed=ended)
                states[request.dag_id] = runs
            if all(_have_ended(states[request.dag_id], request.count) for request in requests):
                return states
            if time.monotonic() > deadline:
                raise StackError(f"The DAGs did not end within {time.monotonic() - began:.0f} s: {states}")
            time.sleep(1)


def _have_ended(states: dict[str, str], count: int) -> bool:
    return len(states) >= count and all(state in END_STATES for state in states.values())


def _get_runs(api: ApiClient, request: RunRequest) -> list[dict[str, Any]]:
    query: dict[str, Any] = {"order_by": "run_after", "limit": 100}
    if request.scheduled_after:
        query |= {"run_type": "scheduled", "run_after_gt": request.scheduled_after.isoformat()}
    runs: list[dict[str, Any]] = api_request(api, "GET", f"/dags/{request.dag_id}/dagRuns", params=query)["dag_runs"]
    return [run for run in runs if not request.triggered or run["dag_run_id"] == request.triggered[0]]


def _get_task_states(api: ApiClient, dag_id: str, run_id: str) -> list[str | None]:
    states: list[str | None] = []
    while True:
        query = {"limit": 100, "offset": len(states)}
        page = api_request(api, "GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params=query)
        states += [instance["state"] for instance in page["task_instances"]]
        if not page["task_instances"] or len(states) >= page["total_entries"]:
            return states


def api_request(api: ApiClient, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Call the REST API and return its answer.

    Raises:
        StackError: Airflow refused it.
    """
    return _content(api.request(method, path, **options))


def _content(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        request = f"{response.request.method} {response.request.url.path}"
        raise StackError(f"Airflow refused {request}: {response.status_code} {response.text[:500]}")
    content: dict[str, Any] = response.json()
    return content
