"""`make bench-workers`: how a month of many forms divides over Celery's workers, each doing one task at a time."""

from __future__ import annotations

import argparse
import os
import time

from rich.table import Table

from bench.installation import FOLDER, JOB
from bench.loading import empty
from dev import airflow, catchup, demo, meg, stack, workers
from dev.processes import StackError
from dev.show import console


def main() -> None:
    """Load the same month with each number of workers in turn, and print how long that took."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--forms", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    asked = parser.parse_args()
    month = demo.this_month().subtract(months=1)
    with stack.held(FOLDER, anew=True), stack.databases(FOLDER) as servers:
        data = meg.Demo(seed=1, forms=asked.forms, until=demo.this_month().date(), months=2, sessions_per_form_month=1)
        with console.status(f"Seeding {asked.forms:,} forms"):
            meg.seed(servers.postgres, demo.DATABASES["eu"], data)
        settings = {
            **demo.settings(servers),
            "MEG_REGIONS": "eu",
            "BI_START_DATE": demo.this_month().add(months=2).to_date_string(),
            "BI_MAX_MAPPED_TASKS": "256",
            "BI_MAX_PARALLEL_CHUNKS": "8",
            "AIRFLOW__CORE__PARALLELISM": "32",
        }
        environment = airflow.environment(FOLDER, servers.postgres, servers.secret, settings)
        airflow.migrate(FOLDER, servers.postgres, servers.secret, environment)
        title = f"A month of {asked.forms:,} forms, {os.cpu_count()} cores"
        table = Table("workers", "seconds", "times as fast", "documents", title=title)
        first = 0.0
        with (
            workers.broker(FOLDER, environment) as celery,
            airflow.running(FOLDER, environment | celery, servers.secret) as up,
        ):
            for count in asked.workers:
                empty(servers)  # or only the first would have anything to write
                conf = {"period": f"{month:YYYY-MM}", "jobs": [JOB]}
                with workers.working(up, FOLDER, count, concurrency=1), up.api() as api:
                    began = time.monotonic()
                    states = catchup.catch_up(api, catchup.Wanted("bi_monthly", triggered=(f"workers-{count}", conf)))
                    seconds = time.monotonic() - began
                if set(states["bi_monthly"].values()) != {"success"}:
                    raise StackError(
                        f"The run with {count} workers failed; the tasks' logs are in {FOLDER}/airflow/logs."
                    )
                first = first or seconds
                table.add_row(str(count), f"{seconds:.0f}", f"{first / seconds:.2f}", f"{_documents(servers):,}")
    console.print(table)


def _documents(servers: stack.Databases) -> int:
    with servers.mongo.client() as client:
        return client[stack.DATABASE][JOB].count_documents({})


if __name__ == "__main__":
    main()
