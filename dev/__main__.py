"""`python -m dev run`: every job for real, on this machine alone; `python -m dev up` then keeps Airflow's UI up.

`doctor`, `report` and `atlas` are those of dev/commands.py.
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

from dev import airflow, commands, demo_regions, embedded_stack, run_dags
from dev.console import console, print_published
from dev.processes import StackError, die_with_parent

ROOT = Path(__file__).parents[1]
_ASKED = {"doctor": commands.doctor, "report": commands.report, "atlas": commands.atlas}


def main() -> int:
    """Run the command of the command line, and return its status."""
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    parser.add_argument("command", choices=["run", "up", *_ASKED])
    command = parser.parse_args().command
    signal.signal(signal.SIGTERM, _interrupt)
    if "MAKELEVEL" in os.environ:
        die_with_parent()  # make killed hard takes this process with it, and the kernel then ends the servers
    try:
        folder = ROOT / ".local" / "stack"
        return _ASKED[command](folder) if command in _ASKED else _run(folder, stay=command == "up")
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
    first_month = demo_regions.first_month()
    last_quarter = demo_regions.this_month().first_of("quarter").subtract(months=3)
    with ExitStack() as until_done:
        until_done.enter_context(embedded_stack.stack_lock(folder))
        databases = until_done.enter_context(demo_regions.databases(folder))
        settings = demo_regions.demo_env(databases)
        with console.status("Starting Airflow"):
            environment = airflow.environment(
                folder, databases.postgres, databases.secret, settings, port=airflow.UI_PORT
            )
            airflow.migrate(folder, databases.postgres, databases.secret, environment)
            up = until_done.enter_context(airflow.run_services(folder, environment, databases.secret))
        console.print(f"Airflow is up after {time.monotonic() - began:.0f} s")
        quarter = f"{last_quarter.year}-Q{last_quarter.quarter}"
        with up.api() as api:
            runs = run_dags.run_and_wait(
                api,
                run_dags.RunRequest("bi_monthly", scheduled_after=first_month, count=demo_regions.CATCHUP_MONTHS),
                run_dags.RunRequest("bi_quarterly", triggered=(f"demo__{quarter}", {"period": quarter})),
                run_dags.RunRequest("bi_weekly", scheduled_after=pendulum.now().subtract(weeks=1)),
            )
        loads = print_published(
            databases.mongo, embedded_stack.LIVE_DATABASE, [run_id for states in runs.values() for run_id in states]
        )
        failed = [f"{dag} {run}" for dag, states in runs.items() for run, state in states.items() if state != "success"]
        if failed:
            console.print(f"Failed: {', '.join(failed)}; the tasks' logs are in {folder}/airflow/logs", style="red")
        console.print(f"{loads} slices published, {time.monotonic() - began:.0f} s in all")
        if stay:
            console.print(f"\nAirflow: {up.url}   login: {airflow.LOGIN}   password: {up.password}", highlight=False)
            console.print("Ctrl-C ends it.")
            signal.pause()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
