"""`python -m dev run`: the last three months for real, on this machine alone; `up` then keeps Airflow's UI up."""

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

from dev import airflow, catchup, meg, stack
from dev.processes import StackError, die_with_parent
from dev.show import console, print_loads

ROOT = Path(__file__).parents[1]
FORMS = {"eu": 180, "uk": 120}
MONTHS = 3


def main() -> int:
    """Run the command of the command line, and return its status."""
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    parser.add_argument("command", choices=["run", "up"])
    stay = parser.parse_args().command == "up"
    signal.signal(signal.SIGTERM, _interrupt)
    if "MAKELEVEL" in os.environ:
        die_with_parent()  # make killed hard takes this process with it, and the kernel then ends the servers
    try:
        return _run(ROOT / ".local" / "stack", stay=stay)
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
    timezone = os.environ.get("BI_TIMEZONE") or "UTC"
    first_month = pendulum.now(timezone).start_of("month").subtract(months=MONTHS)
    with ExitStack() as until_done:
        until_done.enter_context(stack.held(folder))
        with console.status("Starting PostgreSQL and MongoDB"):
            databases = until_done.enter_context(stack.databases(folder))
        for seed, (region, forms) in enumerate(FORMS.items(), start=7):
            demo = meg.Demo(seed=seed, forms=forms, until=pendulum.today("UTC").date())
            with console.status(f"Seeding MEG {region}"):
                meg.seed(databases.postgres, f"meg_{region}", demo)
            console.print(f"MEG {region}: {demo.forms} forms, {demo.months} months until {demo.until}")
        settings = {
            "BI_AGGREGATE": "1",
            "MEG_REGIONS": ",".join(FORMS),
            "BI_START_DATE": first_month.to_date_string(),
            **databases.connections({region: f"meg_{region}" for region in FORMS}),
        }
        with console.status("Starting Airflow"):
            environment = airflow.environment(folder, databases.postgres, databases.secret, settings)
            airflow.migrate(folder, databases.postgres, databases.secret, environment)
            up = until_done.enter_context(airflow.running(folder, environment, databases.secret))
        console.print(f"Airflow is up after {time.monotonic() - began:.0f} s")
        with up.api() as api:
            runs = catchup.catch_up(api, "bi_monthly", first_month, MONTHS)
        loads = print_loads(databases.mongo, stack.DATABASE, list(runs))
        failed = sorted(run_id for run_id, state in runs.items() if state != "success")
        if failed:
            console.print(f"Failed: {', '.join(failed)}; the tasks' logs are in {folder}/airflow/logs", style="red")
        console.print(f"{loads} slices published in {len(runs)} runs, {time.monotonic() - began:.0f} s in all")
        if stay:
            console.print(f"\nAirflow: {up.url}   login: {airflow.LOGIN}   password: {up.password}", highlight=False)
            console.print("Ctrl-C ends it.")
            signal.pause()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
