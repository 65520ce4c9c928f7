"""`make bench-workers`: how a month of many forms divides over Celery's workers, each doing one task at a time."""

from __future__ import annotations

import argparse
import os
import time

from rich.table import Table

from bench.airflow_instance import JOB, WORK_DIR
from bench.helpers import drop_databases
from dev import airflow, celery_workers, demo_meg, demo_regions, embedded_stack, run_dags
from dev.console import console
from dev.processes import StackError


def main() -> None:
    """Load the same month with each number of workers in turn, and print how long that took."""
    parser = argparse.ArgumentParser(prog="python -m bench.celery_scaling", description=__doc__)
    parser.add_argument("--forms", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    asked = parser.parse_args()
    month = demo_regions.this_month().subtract(months=1)
    with embedded_stack.stack_lock(WORK_DIR, reset=True), embedded_stack.databases(WORK_DIR) as servers:
        data = demo_meg.DemoConfig(
            seed=1, forms=asked.forms, until=demo_regions.this_month().date(), months=2, sessions_per_form_month=1
        )
        with console.status(f"Seeding {asked.forms:,} forms"):
            demo_meg.seed_database(servers.postgres, demo_regions.DEMO_DATABASES["eu"], data)
        settings = {
            **demo_regions.demo_env(servers),
            "MEG_REGIONS": "eu",
            "BI_START_DATE": demo_regions.this_month().add(months=2).to_date_string(),
            "BI_MAX_MAPPED_TASKS": "256",
            "BI_MAX_PARALLEL_CHUNKS": "8",
            "AIRFLOW__CORE__PARALLELISM": "32",
        }
        environment = airflow.build_env(WORK_DIR, servers.postgres, servers.secret, settings)
        airflow.migrate(WORK_DIR, servers.postgres, servers.secret, environment)
        title = f"A month of {asked.forms:,} forms, {os.cpu_count()} cores"
        table = Table("workers", "seconds", "times as fast", "documents", title=title)
        first = 0.0
        with (
            celery_workers.redis_broker(WORK_DIR, environment) as celery,
            airflow.run_services(WORK_DIR, environment | celery, servers.secret) as up,
        ):
            for count in asked.workers:
                drop_databases(servers)  # or only the first would have anything to write
                conf = {"period": f"{month:YYYY-MM}", "jobs": [JOB]}
                with celery_workers.run_workers(up, WORK_DIR, count, concurrency=1), up.api() as api:
                    began = time.monotonic()
                    states = run_dags.run_and_wait(
                        api, run_dags.RunRequest("bi_monthly", triggered=(f"workers-{count}", conf))
                    )
                    seconds = time.monotonic() - began
                if set(states["bi_monthly"].values()) != {"success"}:
                    raise StackError(
                        f"The run with {count} workers failed; the tasks' logs are in {WORK_DIR}/airflow/logs."
                    )
                first = first or seconds
                table.add_row(str(count), f"{seconds:.0f}", f"{first / seconds:.2f}", f"{_documents(servers):,}")
    console.print(table)


def _documents(servers: embedded_stack.DatabaseServers) -> int:
    with servers.mongo.client() as client:
        return client[embedded_stack.LIVE_DATABASE][JOB].count_documents({})


if __name__ == "__main__":
    main()
