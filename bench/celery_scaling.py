"""`make bench-workers`: loads a month with different numbers of Celery workers, each running one task at a time."""

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
    """Load the same month with each number of workers in turn, and print the seconds that each load takes."""
    parser = argparse.ArgumentParser(prog="python -m bench.celery_scaling", description=__doc__)
    parser.add_argument("--forms", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    month = demo_regions.this_month().subtract(months=1)
    with embedded_stack.stack_lock(WORK_DIR, reset=True), embedded_stack.databases(WORK_DIR) as servers:
        demo = demo_meg.DemoConfig(
            seed=1, forms=arguments.forms, until=demo_regions.this_month().date(), months=2, sessions_per_form_month=1
        )
        with console.status(f"Seeding {arguments.forms:,} forms"):
            demo_meg.seed_database(servers.postgres, demo_regions.DEMO_DATABASES["eu"], demo)
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
        title = f"A month of {arguments.forms:,} forms, {os.cpu_count()} cores"
        table = Table("workers", "seconds", "speed-up", "documents", title=title)
        first_seconds = 0.0
        with (
            celery_workers.redis_broker(WORK_DIR, environment) as celery_env,
            airflow.run_services(WORK_DIR, environment | celery_env, servers.secret) as services,
        ):
            for count in arguments.workers:
                drop_databases(servers)  # or only the first load would write anything
                conf = {"period": f"{month:YYYY-MM}", "jobs": [JOB]}
                with celery_workers.run_workers(services, WORK_DIR, count, concurrency=1), services.api() as api:
                    start = time.monotonic()
                    states = run_dags.run_and_wait(
                        api, run_dags.RunRequest("bi_monthly", triggered=(f"workers-{count}", conf))
                    )
                    seconds = time.monotonic() - start
                if set(states["bi_monthly"].values()) != {"success"}:
                    raise StackError(
                        f"The run with {count} workers failed; the tasks' logs are in {WORK_DIR}/airflow/logs."
                    )
                first_seconds = first_seconds or seconds
                table.add_row(
                    str(count), f"{seconds:.0f}", f"{first_seconds / seconds:.2f}", f"{_count_documents(servers):,}"
                )
    console.print(table)


def _count_documents(servers: embedded_stack.DatabaseServers) -> int:
    with servers.mongo.client() as client:
        return client[embedded_stack.LIVE_DATABASE][JOB].count_documents({})


if __name__ == "__main__":
    main()
