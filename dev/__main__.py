"""`python -m dev run`: every job for real, on this machine alone; `python -m dev up` then keeps Airflow's UI up."""

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
DATABASES = {region: f"meg_demo_{region}" for region in FORMS}
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
    this_month = _this_month()
    first_month = this_month.subtract(months=MONTHS)
    last_quarter = this_month.first_of("quarter").subtract(months=3)
    with ExitStack() as until_done:
        until_done.enter_context(stack.held(folder))
        with console.status("Starting PostgreSQL and MongoDB"):
            databases = until_done.enter_context(stack.databases(folder))
        for seed, (region, forms) in enumerate(FORMS.items(), start=7):
            # Until the month's end, so that the same data stands all month; no report looks past its own instant.
            demo = meg.Demo(seed=seed, forms=forms, until=this_month.add(months=1).date())
            with console.status(f"Seeding MEG {region}"):
                meg.seed(databases.postgres, DATABASES[region], demo)
            console.print(f"MEG {region}: {demo.forms} forms, {demo.months} months until {demo.until}")
        settings = {
            "BI_AGGREGATE": "1",
            "MEG_REGIONS": ",".join(FORMS),
            "BI_START_DATE": first_month.to_date_string(),
            "BI_MAX_MAPPED_TASKS": os.environ.get("BI_MAX_MAPPED_TASKS", "8"),
            **databases.connections(DATABASES),
        }
        with console.status("Starting Airflow"):
            environment = airflow.environment(folder, databases.postgres, databases.secret, settings)
            airflow.migrate(folder, databases.postgres, databases.secret, environment)
            up = until_done.enter_context(airflow.running(folder, environment, databases.secret))
        console.print(f"Airflow is up after {time.monotonic() - began:.0f} s")
        quarter = f"{last_quarter.year}-Q{last_quarter.quarter}"
        with up.api() as api:
            runs = catchup.catch_up(
                api,
                catchup.Wanted("bi_monthly", scheduled_after=first_month, count=MONTHS),
                catchup.Wanted("bi_quarterly", triggered=(f"demo__{quarter}", {"period": quarter})),
                catchup.Wanted("bi_weekly", scheduled_after=pendulum.now().subtract(weeks=1)),
            )
        loads = print_loads(databases.mongo, stack.DATABASE, [run_id for states in runs.values() for run_id in states])
        failed = [f"{dag} {run}" for dag, states in runs.items() for run, state in states.items() if state != "success"]
        if failed:
            console.print(f"Failed: {', '.join(failed)}; the tasks' logs are in {folder}/airflow/logs", style="red")
        console.print(f"{loads} slices published, {time.monotonic() - began:.0f} s in all")
        if stay:
            console.print(f"\nAirflow: {up.url}   login: {airflow.LOGIN}   password: {up.password}", highlight=False)
            console.print("Ctrl-C ends it.")
            signal.pause()
    return 1 if failed else 0


def _this_month() -> pendulum.DateTime:
    timezone = os.environ.get("BI_TIMEZONE") or "UTC"
    try:
        return pendulum.now(timezone).start_of("month")
    except (ValueError, KeyError, OSError):
        raise StackError(f"BI_TIMEZONE is {timezone!r}, which is no IANA time zone, such as Europe/Dublin.") from None


if __name__ == "__main__":
    sys.exit(main())
