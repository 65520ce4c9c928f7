"""Runs the demo: `run` loads three months on embedded servers; `up` then keeps the UI running and loads eleven more.

`doctor`, `report` and `atlas` are the commands of dev/commands.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import pendulum

from dev import airflow, commands, demo_history, demo_regions, embedded_stack, run_dags
from dev.api_client import ApiClient
from dev.console import console, print_published
from dev.processes import StackError, die_with_parent

ROOT = Path(__file__).parents[1]
_COMMANDS = {"doctor": commands.doctor, "report": commands.report, "atlas": commands.atlas}


def main() -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    parser.add_argument("command", choices=["run", "up", *_COMMANDS])
    command = parser.parse_args().command
    signal.signal(signal.SIGTERM, _interrupt)
    if "MAKELEVEL" in os.environ:
        die_with_parent()  # when make is killed, the kernel ends this process, and then the servers
    try:
        folder = ROOT / ".local" / "stack"
        return _COMMANDS[command](folder) if command in _COMMANDS else _run(folder, stay=command == "up")
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(folder: Path, *, stay: bool) -> int:
    began = time.monotonic()
    with ExitStack() as exit_stack:
        exit_stack.enter_context(embedded_stack.stack_lock(folder))
        databases = exit_stack.enter_context(demo_regions.databases(folder))
        settings = demo_regions.demo_env(databases)
        exit_stack.enter_context(demo_regions.shared_env(folder, settings))
        with console.status("Starting Airflow"):
            env = airflow.build_env(folder, databases.postgres, databases.secret, settings, port=airflow.UI_PORT)
            airflow.migrate(folder, databases.postgres, databases.secret, env)
            services = exit_stack.enter_context(airflow.run_services(folder, env, databases.secret))
        console.print(f"Airflow is up after {time.monotonic() - began:.0f} s")
        api = exit_stack.enter_context(services.api())
        runs = _load_last_months(api)
        loads = print_published(
            databases.mongo, embedded_stack.LIVE_DATABASE, [run_id for states in runs.values() for run_id in states]
        )
        failed = [f"{dag} {run}" for dag, states in runs.items() for run, state in states.items() if state != "success"]
        if failed:
            console.print(f"Failed: {', '.join(failed)}; the tasks' logs are in {folder}/airflow/logs", style="red")
        console.print(f"{loads} slices published, {time.monotonic() - began:.0f} s in total")
        if stay:
            console.print(
                f"\nAirflow: {services.url}   login: {airflow.LOGIN}   password: {services.password}", highlight=False
            )
            console.print("Press Ctrl-C to stop.")
            services.services["scheduler"].lower_priority()  # the tasks' processes are its children
            demo_history.load_history(api, databases.mongo, demo_regions.history(), demo_regions.DEMO_FORMS)
            signal.pause()
    return 1 if failed else 0


def _load_last_months(api: ApiClient) -> dict[str, dict[str, str]]:
    """Run all three DAGs, the monthly one by catchup, and return the state of each run, by DAG and run id."""
    last_quarter = demo_regions.this_month().first_of("quarter").subtract(months=3)
    quarter = f"{last_quarter.year}-Q{last_quarter.quarter}"
    return run_dags.run_and_wait(
        api,
        run_dags.RunRequest(
            "bi_monthly", scheduled_after=demo_regions.first_month(), count=demo_regions.CATCHUP_MONTHS
        ),
        run_dags.RunRequest("bi_quarterly", triggered=(f"demo__{quarter}", {"period": quarter})),
        run_dags.RunRequest("bi_weekly", scheduled_after=pendulum.now().subtract(weeks=1)),
    )


if __name__ == "__main__":
    sys.exit(main())
