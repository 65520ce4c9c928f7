"""`make compat`: all DAGs on each supported version of Airflow, on real databases; the figures must be the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bson
from rich.table import Table

from bi_ops.catalog.jobs import JOBS
from dev import airflow, demo_meg, demo_regions, embedded_stack, mongo, postgres, run_dags
from dev.console import console
from dev.processes import StackError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".local" / "compat"
_FORMS = {"eu": 40, "uk": 15}
_SHOWN = ("apache-airflow-providers-postgres", "apache-airflow-providers-mongo")
_STAMPS = ("loaded_at", "run_id")
_FEWER = """
UPDATE megforms_institution SET is_demo = true
WHERE id IN (SELECT id FROM megforms_institution WHERE NOT is_demo ORDER BY id LIMIT 2)
"""
"""Some institutions, and their forms with them, are left out from now on."""


def main() -> int:
    """Run every version in turn, print a table, and return the status."""
    if external := {postgres.URL_ENV_VAR, mongo.URL_ENV_VAR} & set(os.environ):
        console.print(f"Each version needs databases of its own: unset {', '.join(external)}", style="red")
        return 1
    current = version("apache-airflow")
    pins = {file.stem: file for file in sorted((ROOT / "dev" / "compat").glob("*.txt"))}
    found: dict[str, dict[str, Any]] = {}
    for name in [*pins, current]:
        try:
            python = _environment(name, pins[name]) if name in pins else Path(sys.executable)
            with console.status(f"Airflow {name}"):
                found[name] = _in_its_own_process(python, FOLDER / name / "stack")
        except StackError as error:
            found[name] = {"error": str(error), "digest": None}
        console.print(f"Airflow {name}: {found[name].get('error') or 'well'}", markup=False, highlight=False)
    console.print(_table(found, current))
    return int(any(each.get("error") or each["digest"] != found[current]["digest"] for each in found.values()))


def _environment(name: str, pins: Path) -> Path:
    """The Python of an environment with what the file pins, made where it is not there or was made of another file."""
    folder = FOLDER / name
    made_of, python = folder / "pins.txt", folder / "venv" / "bin" / "python"
    if not made_of.exists() or made_of.read_text() != pins.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        uv = [str(Path(sys.executable).with_name("uv"))]
        with console.status(f"Installing Airflow {name}"):
            for step in (
                ["venv", "--quiet", "--python", sys.executable, str(folder / "venv")],
                ["pip", "install", "--quiet", "--python", str(python), "-r", str(pins)],
            ):
                done = subprocess.run([*uv, *step], capture_output=True, text=True, check=False)
                if done.returncode:
                    raise StackError(f"Airflow {name} cannot be installed:\n{done.stderr}")
        shutil.copy(pins, made_of)
    return python


def _in_its_own_process(python: Path, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), "-m", "dev.airflow_compat", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"error": f"{done.stdout[-2000:]}{done.stderr[-2000:]}", "digest": None}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_current_version(folder: Path) -> dict[str, Any]:
    """Run all DAGs for the last month, or quarter, on the Airflow of this process, and say what came of it."""
    with ExitStack() as until_done:
        until_done.enter_context(embedded_stack.stack_lock(folder, reset=True))
        servers = until_done.enter_context(embedded_stack.databases(folder))
        for seed, (region, forms) in enumerate(_FORMS.items()):
            demo_data = demo_meg.DemoConfig(seed=seed, forms=forms, until=demo_regions.this_month().date(), months=6)
            demo_meg.seed_database(servers.postgres, demo_regions.DEMO_DATABASES[region], demo_data)
        settings = {
            **demo_regions.demo_env(servers),
            "BI_MAX_SHRINK": "1",  # by the second time there is much less
            "BI_START_DATE": demo_regions.this_month().add(months=2).to_date_string(),  # nothing but what is triggered
        }
        environment = airflow.environment(folder, servers.postgres, servers.secret, settings)
        airflow.migrate(folder, servers.postgres, servers.secret, environment)
        up = until_done.enter_context(airflow.run_services(folder, environment, servers.secret))
        began = time.monotonic()
        problems, page = _load(up, servers)
        problems += _integrity(environment)
        with servers.mongo.client() as client:
            live = client[embedded_stack.LIVE_DATABASE]
            names = sorted(set(live.list_collection_names()) - {"bi_loads"})
            documents = {name: list(live[name].find(sort=[("_id", 1)])) for name in names}
            slices = live["bi_loads"].count_documents({})
    if slices != len(JOBS) * len(_FORMS):
        problems.append(f"{slices} slices were published, not one of each job and region")
    return {
        "error": "; ".join(problems),
        "seconds": round(time.monotonic() - began),
        "slices": slices,
        "documents": sum(map(len, documents.values())),
        "digest": _digest(documents),
        "page": page,
        "versions": {name: version(name) for name in _SHOWN},
    }


def _load(up: airflow.AirflowServices, servers: embedded_stack.DatabaseServers) -> tuple[list[str], str]:
    """Run every DAG twice, the second time over fewer forms; gives which failed, and whether there is a page."""
    month = demo_regions.this_month().subtract(months=1)
    quarter = demo_regions.this_month().first_of("quarter").subtract(months=3)
    periods = {
        "bi_monthly": f"{month:YYYY-MM}",
        "bi_quarterly": f"{quarter.year}-Q{quarter.quarter}",
        "bi_weekly": f"{month:YYYY-MM}",
    }
    wanted = [
        run_dags.RunRequest(name, triggered=("compatible", {"period": period})) for name, period in periods.items()
    ]
    with up.api() as api:
        run_dags.run_and_wait(api, *wanted, seconds=600)
        with servers.postgres.connect(demo_regions.DEMO_DATABASES["eu"]) as admin:
            admin.execute(_FEWER)
        # Cleared and done once more, the monthly run has fewer stage tasks than it had.
        states = run_dags.run_and_wait(api, *wanted, seconds=600)
        [plugin] = [
            each for each in run_dags.api_request(api, "GET", "/plugins")["plugins"] if each["name"] == "meg_bi"
        ]
    failed = [f"{name} failed" for name, runs in states.items() if set(runs.values()) != {"success"}]
    return failed, "yes" if plugin.get("external_views") else "no"


def _integrity(environment: dict[str, str]) -> list[str]:
    """What Astronomer's integrity test finds wrong."""
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(ROOT / ".astro")]
    done = subprocess.run(test, env=environment, check=False, capture_output=True, text=True)
    return [f"the integrity test of .astro: {done.stdout[-1500:]}"] if done.returncode else []


def _digest(documents: dict[str, list[dict[str, Any]]]) -> str:
    """Of every document to the byte, but for when and by what it was loaded."""
    digest = hashlib.sha256()
    for each in (document for name in sorted(documents) for document in documents[name]):
        digest.update(bson.encode({name: value for name, value in each.items() if name not in _STAMPS}))
    return digest.hexdigest()[:12]


def _table(found: dict[str, dict[str, Any]], current: str) -> Table:
    columns = ("Airflow", "postgres", "mongo", "slices", "documents", "seconds", "figures", "page")
    table = Table(*columns, title="All DAGs on each supported Airflow")
    for name, each in found.items():
        if "versions" not in each:
            table.add_row(name, *[""] * 6, "did not run")
            continue
        same = "the same" if each["digest"] == found[current]["digest"] else "DIFFERENT"
        counts = (str(each[what]) for what in ("slices", "documents", "seconds"))
        table.add_row(name, *(each["versions"][shown] for shown in _SHOWN), *counts, same, each["page"])
    return table


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run_current_version(Path(sys.argv[1]))))
    else:
        sys.exit(main())
