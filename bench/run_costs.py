"""What a DAG run costs in Airflow: seconds, processor time, tasks and connections, for the sizing guide."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.airflow_instance import AirflowInstance
from bench.measure import processor_seconds
from dev import demo_meg
from dev.embedded_stack import DatabaseServers

_SAMPLE_SECONDS = 1
_CONNECTIONS_SQL = "SELECT usename, datname, count(*) FROM pg_stat_activity WHERE usename IS NOT NULL GROUP BY 1, 2"


@dataclass(frozen=True)
class RunCost:
    """The cost of one DAG run.

    Attributes:
        seconds: From the trigger to the end.
        cpu: Processor seconds of Airflow, its tasks, PostgreSQL and MongoDB.
        tasks: The number of task instances.
        meg_connections: The most connections to one MEG at once, as sampled every second.
        metadata_connections: The same, to Airflow's metadata database.
        mongo_connections: The same, to MongoDB.
    """

    seconds: float
    cpu: float
    tasks: int
    meg_connections: int
    metadata_connections: int
    mongo_connections: int


def measure_run(servers: DatabaseServers, airflow: AirflowInstance, dag_id: str, **conf: Any) -> RunCost:
    """Trigger a DAG run, and measure it until its end.

    Args:
        servers: The databases.
        airflow: The running Airflow.
        dag_id: The DAG.
        **conf: The run's parameters.

    Raises:
        StackError: The run failed.
    """
    pids = [service.process.pid for service in airflow.services.services.values()]
    pids += [pid for pid in (servers.postgres.pid, servers.mongo_admin.pid) if pid]
    before = sum(map(processor_seconds, pids))
    with _sampled_connections(servers) as peak:
        seconds = airflow.run_dag(dag_id, conf, timeout=1800)
    cpu = sum(map(processor_seconds, pids)) - before
    return RunCost(seconds, cpu, airflow.count_tasks(dag_id), peak.meg, peak.metadata, peak.mongo)


@dataclass
class _Peak:
    meg: int = 0
    metadata: int = 0
    mongo: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def _sampled_connections(servers: DatabaseServers) -> Iterator[_Peak]:
    peak = _Peak()
    thread = threading.Thread(target=_sample, args=(servers, peak), daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        peak.ended.set()
        thread.join()


def _sample(servers: DatabaseServers, peak: _Peak) -> None:
    with servers.postgres.connect() as connection, servers.mongo_admin.client() as client:
        while not peak.ended.wait(_SAMPLE_SECONDS):
            for user, _, count in connection.execute(_CONNECTIONS_SQL).fetchall():
                if user == demo_meg.READER_ROLE:
                    peak.meg = max(peak.meg, count)
                elif user != servers.postgres.admin:
                    peak.metadata = max(peak.metadata, count)
            current = client.admin.command("serverStatus")["connections"]["current"]
            peak.mongo = max(peak.mongo, current)
