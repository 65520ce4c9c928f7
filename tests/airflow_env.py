"""The environments of Airflow over the tests' databases, and its REST API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pendulum

from dev import airflow
from dev.embedded_stack import DatabaseServers
from dev.processes import child_env
from tests.conftest import ROOT, STACK

NO_SCHEDULED_RUNS = {
    "BI_AGGREGATE": "1",
    "BI_START_DATE": pendulum.now().add(months=2).to_date_string(),
    "MEG_REGIONS": "eu",
}
"""The region eu, and no DAG runs but those that a test triggers."""
FAST_FAILURE_DETECTION = {
    "PYTHONPATH": str(ROOT / "tests" / "policy"),
    "TEST_RETRIES": "6",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "3",
}
"""A dead process is noticed within seconds, not minutes, and its task retried as often as in production."""


def command_line_env(home: Path, project: Path = ROOT, **variables: str) -> dict[str, str]:
    """The environment of Airflow's command line with a metadata database in `home`, and the DAGs of `project`."""
    return child_env(
        STACK,
        {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **variables,
        },
    )


def new_airflow(servers: DatabaseServers, stack: Path, settings: Mapping[str, str], *, port: int = 0) -> dict[str, str]:
    """The environment of an Airflow with a new metadata database; its API gets this port if that is free.

    Airflow's tables are made once on each server, and copied.
    """
    database, template = airflow.METADATA_DATABASE, f"airflow_{version('apache-airflow')}"
    settings = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600", **settings}  # no test changes a DAG file
    environment = airflow.build_env(stack, servers.postgres, servers.secret, settings, port=port)
    with servers.postgres.connect() as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        if not servers.postgres.database_exists(template):
            airflow.migrate(stack, servers.postgres, servers.secret, environment)
            admin.execute(f'ALTER DATABASE {database} RENAME TO "{template}"')
        admin.execute(f'CREATE DATABASE {database} TEMPLATE "{template}" OWNER {database}')
    return environment


@dataclass(frozen=True)
class AirflowApi:
    """Airflow's REST API, with requests about the runs of one DAG.

    Attributes:
        api: The client, logged in.
        dag_id: The DAG.
    """

    api: httpx.Client
    dag_id: str

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        response = self.api.get(path, params=query)
        response.raise_for_status()
        body: dict[str, Any] = response.json()
        return body

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self.api.post(path, json=body)
        assert response.is_success, response.text
        content: dict[str, Any] = response.json()
        return content

    def trigger(self, run_id: str = "", *, logical_date: str | None = None, **conf: Any) -> str:
        """Trigger a run and return its id."""
        run_id = run_id or f"test__{uuid4()}"  # with an id, so that a retried call starts no second run
        body = {"dag_run_id": run_id, "logical_date": logical_date, "conf": conf}
        return str(self.post(f"/dags/{self.dag_id}/dagRuns", body)["dag_run_id"])

    def wait_for_run(self, run_id: str, dag_id: str = "") -> str:
        """The state of a run of this DAG, or of another one, once it has ended."""
        deadline = time.monotonic() + 240
        path = f"/dags/{dag_id or self.dag_id}/dagRuns/{run_id}"
        while (state := self.get(path)["state"]) not in ("success", "failed"):
            assert time.monotonic() < deadline, f"{run_id} is {state}"
            time.sleep(0.5)
        return str(state)

    def clear(self, run_id: str, **selection: Any) -> str:
        """Clear tasks of a run with all that follows them, as the UI does, and wait for the run to end."""
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "include_downstream": True, **selection}
        assert self.post(f"/dags/{self.dag_id}/clearTaskInstances", body)["total_entries"] > 0
        return self.wait_for_run(run_id)

    def tasks(self, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
        """The run's task instances, by task id and map index."""
        instances = self.get(f"/dags/{self.dag_id}/dagRuns/{run_id}/taskInstances", limit=100)["task_instances"]
        return {(task["task_id"], task["map_index"]): task for task in instances}

    def log_lines(self, run_id: str, task_id: str, map_index: int = -1) -> list[str]:
        """The lines of the log of a task's last attempt."""
        attempt = self.tasks(run_id)[task_id, map_index]["try_number"]
        path = f"/dags/{self.dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        content = self.get(path, full_content=True, map_index=map_index)["content"]
        return [str(line["event"]) for line in content]
