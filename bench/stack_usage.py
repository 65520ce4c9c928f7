"""Measures what a DAG run costs: processor time of all servers, Airflow's memory, and calls of Airflow's API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from bench.airflow_instance import AirflowInstance
from dev.embedded_stack import DatabaseServers

ACCESS_LOG = {"AIRFLOW__LOGGING__NAMESPACE_LEVELS": "http.access=INFO"}
"""The setting with which Airflow's API server logs its calls, whatever the level of other logs."""
_SAMPLE_SECONDS = 1.0
_MB = 2**20


@dataclass
class Usage:
    """The cost of a DAG run.

    Attributes:
        cpu: Processor time in seconds, by part: `scheduler`, `tasks`, each other service, `PostgreSQL` and `MongoDB`.
        memory_mb: Growth of the memory of Airflow's processes to its highest sum, in MB; shared pages count once.
        calls: Calls of the API for tasks.
    """

    cpu: dict[str, float]
    memory_mb: float = 0
    calls: int = 0

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all parts, in seconds."""
        return sum(self.cpu.values())


@contextmanager
def measure_usage(servers: DatabaseServers, airflow: AirflowInstance) -> Iterator[Usage]:
    """Measure a block on the embedded databases; the result is complete when the block has ended.

    Args:
        servers: The databases, which must be embedded.
        airflow: The Airflow, with the setting `ACCESS_LOG`.
    """
    log = airflow.services.services["api-server"].log
    log_start = log.stat().st_size
    memory = _PeakMemory(airflow)
    start = _cpu_by_part(servers, airflow)
    usage = Usage({})
    try:
        yield usage
    finally:
        usage.memory_mb = memory.stop()
        usage.cpu = {part: seconds - start[part] for part, seconds in _cpu_by_part(servers, airflow).items()}
        with log.open("rb") as lines:
            lines.seek(log_start)
            usage.calls = sum(b"/execution/" in line for line in lines)


def cpu_seconds(pid: int | None) -> float:
    """Processor time of a process and all of its descendants, including ended ones, in seconds."""
    return sum(_cpu(process) for process in _tree(pid))


def _cpu_by_part(servers: DatabaseServers, airflow: AirflowInstance) -> dict[str, float]:
    services = {name: service.process.pid for name, service in airflow.services.services.items()}
    cpu = {name: cpu_seconds(pid) for name, pid in services.items()}
    cpu["PostgreSQL"], cpu["MongoDB"] = cpu_seconds(servers.postgres.pid), cpu_seconds(servers.mongo_admin.pid)
    own = psutil.Process(services["scheduler"]).cpu_times()
    cpu["tasks"] = cpu["scheduler"] - own.user - own.system  # LocalExecutor's workers are the scheduler's children
    cpu["scheduler"] -= cpu["tasks"]
    return cpu


def _tree(pid: int | None) -> list[psutil.Process]:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _cpu(process: psutil.Process) -> float:
    with suppress(psutil.Error):  # it has just ended
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


class _PeakMemory:
    """Samples the memory of Airflow's processes in a thread until it is stopped."""

    def __init__(self, airflow: AirflowInstance) -> None:
        self._pids = [service.process.pid for service in airflow.services.services.values()]
        self._ended = threading.Event()
        self._start_mb = self._peak_mb = self._total_mb()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """End the thread, and return the growth of the memory to its peak, in MB."""
        self._ended.set()
        self._thread.join()
        return self._peak_mb - self._start_mb

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._peak_mb = max(self._peak_mb, self._total_mb())

    def _total_mb(self) -> float:
        total = 0
        for process in (process for pid in self._pids for process in _tree(pid)):
            with suppress(psutil.Error):  # it has just ended
                total += process.memory_full_info().pss
        return total / _MB
