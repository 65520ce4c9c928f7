"""Runs an Airflow with the DAGs of the three cadences and an empty one for the benchmarks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.helpers import REGION
from dev import airflow, demo_regions, embedded_stack
from dev.airflow import AirflowServices
from dev.api_client import ApiClient
from dev.processes import StackError
from dev.run_dags import api_request, trigger, wait_for_dag

WORK_DIR = Path(__file__).parents[1] / ".local" / "bench"
DAGS = Path(__file__).parent / "dags"
JOB = "monthly_submissions"


@dataclass(frozen=True)
class AirflowInstance:
    """A running Airflow.

    Attributes:
        services: Its processes.
        api: Its REST API, logged in.
    """

    services: AirflowServices
    api: ApiClient

    def run_dag(self, dag_id: str, *confs: Mapping[str, Any], timeout: float = 900) -> float:
        """Trigger a run with each of these parameters; returns the seconds from the first trigger to the last end.

        Raises:
            StackError: A run failed, or did not end within `timeout` seconds.
        """
        runs = [
            trigger(self.api, dag_id, f"bench__{uuid4()}", conf)  # its own id: a retry starts no second run
            for conf in confs
        ]
        api_request(self.api, "PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        deadline = time.monotonic() + timeout
        while any(run["state"] in ("queued", "running") for run in runs):
            if time.monotonic() > deadline:
                raise StackError(f"The runs of {dag_id} did not end within {timeout:g} s.")
            time.sleep(1)  # each request takes 70 ms of the API server's time
            runs = [api_request(self.api, "GET", f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}") for run in runs]
        if any(run["state"] != "success" for run in runs):
            raise StackError(f"A run of {dag_id} failed; the tasks' logs are in {WORK_DIR}/airflow/logs.")
        instants = [[datetime.fromisoformat(run[name]) for run in runs] for name in ("queued_at", "end_date")]
        return (max(instants[1]) - min(instants[0])).total_seconds()

    def load_months(self, *periods: str, **conf: Any) -> float:
        """Load `monthly_submissions` for these months; returns the seconds."""
        return self.run_dag("bi_monthly", *({"period": period, "jobs": [JOB], **conf} for period in periods))

    def set_region_database(self, servers: embedded_stack.DatabaseServers, database: str) -> None:
        """Point the region's connection to this database; the environment must not define that connection."""
        fields = json.loads(servers.connections({REGION: database})[f"AIRFLOW_CONN_MEG_{REGION.upper()}"])
        fields |= {"connection_id": f"meg_{REGION}", "extra": json.dumps(fields["extra"])}
        self.api.delete(f"/connections/meg_{REGION}")
        api_request(self.api, "POST", "/connections", json=fields)

    def count_stage_tasks(self) -> int:
        """The number of stage tasks of the last run of `bi_monthly`."""
        return self.count_tasks("bi_monthly", task_id=f"{JOB}.{REGION}.stage")

    def count_tasks(self, dag_id: str, **filters: str) -> int:
        """The number of tasks of a DAG's last run.

        Args:
            dag_id: The DAG.
            **filters: Query parameters of Airflow's API that select tasks.
        """
        runs = api_request(self.api, "GET", f"/dags/{dag_id}/dagRuns", params={"order_by": "-run_after", "limit": 1})
        path = f"/dags/{dag_id}/dagRuns/{runs['dag_runs'][0]['dag_run_id']}/taskInstances"
        return int(api_request(self.api, "GET", path, params={**filters, "limit": 1})["total_entries"])


@contextmanager
def run_airflow(
    servers: embedded_stack.DatabaseServers, regions: Mapping[str, str], *dags: str, **settings: str
) -> Iterator[AirflowInstance]:
    """Run Airflow on LocalExecutor until the block ends.

    Args:
        servers: The databases.
        regions: The database of each region's MEG.
        *dags: Further DAGs to wait for.
        **settings: Further environment variables, such as `MEG_REGIONS` where `regions` is empty.
    """
    environment = airflow.build_env(
        WORK_DIR,
        servers.postgres,
        servers.secret,
        {
            "BI_AGGREGATE": "1",
            "MEG_REGIONS": ",".join(regions),
            "BI_START_DATE": demo_regions.this_month().add(months=2).to_date_string(),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            **servers.connections(regions),
            **settings,
        },
    )
    airflow.migrate(WORK_DIR, servers.postgres, servers.secret, environment)
    start = datetime.now(timezone.utc)
    with airflow.run_services(WORK_DIR, environment, servers.secret) as services, services.api() as api:
        for dag_id in ("bi_monthly", "bi_quarterly", "bi_weekly", "bench_empty", *dags):
            wait_for_dag(api, dag_id)
            _wait_until_parsed(api, dag_id, start)
        yield AirflowInstance(services, api)


def _wait_until_parsed(api: ApiClient, dag_id: str, start: datetime) -> None:
    """Wait until Airflow has parsed a DAG since it was started: an earlier instance may have had other regions."""
    while datetime.fromisoformat(api_request(api, "GET", f"/dags/{dag_id}")["last_parsed_time"]) < start:
        time.sleep(0.5)
