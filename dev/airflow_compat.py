"""`make compat`: runs all DAGs on each supported version of Airflow, and compares the documents that they publish."""

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
from dev import airflow, demo_meg, demo_regions, embedded_stack, mongo, postgres, run_dags, webhook_server
from dev.api_client import ApiClient
from dev.console import console
from dev.processes import StackError

ROOT = Path(__file__).parents[1]
WORK_DIR = ROOT / ".local" / "compat"
_FORMS = {"eu": 40, "uk": 15}
_PROVIDERS = ("apache-airflow-providers-postgres", "apache-airflow-providers-mongo")
_LOAD_METADATA = ("loaded_at", "run_id")
_HIDE_INSTITUTIONS_SQL = """
UPDATE megforms_institution SET is_demo = true
WHERE id IN (SELECT id FROM megforms_institution WHERE NOT is_demo ORDER BY id LIMIT 2)
"""
"""Marks two institutions as demos, which excludes them and their forms from every job."""


def main() -> int:
    """Run every version in turn, print a table, and return the exit status: 1 where one failed or differs."""
    if external := {postgres.URL_ENV_VAR, mongo.URL_ENV_VAR} & set(os.environ):
        console.print(f"Each version needs its own databases. Hint: unset {', '.join(external)}", style="red")
        return 1
    current = version("apache-airflow")
    pins = {file.stem: file for file in sorted((ROOT / "dev" / "airflow_pins").glob("*.txt"))}
    results: dict[str, dict[str, Any]] = {}
    for name in [*pins, current]:
        try:
            python = _ensure_venv(name, pins[name]) if name in pins else Path(sys.executable)
            with console.status(f"Airflow {name}"):
                results[name] = _run_in_subprocess(python, WORK_DIR / name / "stack")
        except StackError as error:
            results[name] = {"error": str(error), "digest": None}
        console.print(f"Airflow {name}: {results[name].get('error') or 'ok'}", markup=False, highlight=False)
    console.print(_table(results, current))
    expected = results[current]["digest"]
    return int(any(result.get("error") or result["digest"] != expected for result in results.values()))


def _ensure_venv(name: str, pins: Path) -> Path:
    """The Python of a virtual environment with the pinned packages, created again whenever the pins change."""
    folder = WORK_DIR / name
    installed_pins, python = folder / "pins.txt", folder / "venv" / "bin" / "python"
    if not installed_pins.exists() or installed_pins.read_text() != pins.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        uv = [str(Path(sys.executable).with_name("uv"))]
        with console.status(f"Installing Airflow {name}"):
            for step in (
                ["venv", "--quiet", "--python", sys.executable, str(folder / "venv")],
                ["pip", "install", "--quiet", "--python", str(python), "-r", str(pins)],
            ):
                result = subprocess.run([*uv, *step], capture_output=True, text=True, check=False)
                if result.returncode:
                    raise StackError(f"Airflow {name} cannot be installed:\n{result.stderr}")
        shutil.copy(pins, installed_pins)
    return python


def _run_in_subprocess(python: Path, folder: Path) -> dict[str, Any]:
    process = subprocess.run(
        [str(python), "-m", "dev.airflow_compat", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]])},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        return {"error": f"{process.stdout[-2000:]}{process.stderr[-2000:]}", "digest": None}
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def run_current_version(folder: Path) -> dict[str, Any]:
    """Run all DAGs for the last month or quarter on the Airflow of this process.

    Returns:
        A JSON object: the problems as one text, the seconds, the numbers of slices and documents, the documents'
        digest, whether there is a reports page, and the providers' versions.
    """
    with ExitStack() as exit_stack:
        exit_stack.enter_context(embedded_stack.stack_lock(folder, reset=True))
        servers = exit_stack.enter_context(embedded_stack.databases(folder))
        for seed, (region, forms) in enumerate(_FORMS.items()):
            demo_data = demo_meg.DemoConfig(seed=seed, forms=forms, until=demo_regions.this_month().date(), months=6)
            demo_meg.seed_database(servers.postgres, demo_regions.DEMO_DATABASES[region], demo_data)
        settings = {
            **demo_regions.demo_env(servers),
            "BI_MAX_SHRINK": "1",  # the second load is much smaller
            "BI_START_DATE": demo_regions.this_month().add(months=2).to_date_string(),  # no scheduled runs
        }
        environment = airflow.build_env(folder, servers.postgres, servers.secret, settings)
        airflow.migrate(folder, servers.postgres, servers.secret, environment)
        began = time.monotonic()
        with airflow.run_services(folder, environment, servers.secret) as services:
            problems, page = _load(services, servers)
        # Without a scheduler, which would load the earlier months that `airflow dags test` lets begin.
        problems += _integrity_problems(environment)
        problems += _notification_problems(environment)
        with servers.mongo.client() as client:
            live = client[embedded_stack.LIVE_DATABASE]
            names = sorted(set(live.list_collection_names()) - {"bi_loads", "bi_watch", "bi_digest"})
            documents = {name: list(live[name].find(sort=[("_id", 1)])) for name in names}
            slices = live["bi_loads"].count_documents({})
    if slices != len(JOBS) * len(_FORMS):
        problems.append(f"{slices} slices were published; expected one per job and region")
    return {
        "error": "; ".join(problems),
        "seconds": round(time.monotonic() - began),
        "slices": slices,
        "documents": sum(map(len, documents.values())),
        "digest": _digest(documents),
        "page": page,
        "versions": {name: version(name) for name in _PROVIDERS},
    }


def _load(services: airflow.AirflowServices, servers: embedded_stack.DatabaseServers) -> tuple[list[str], str]:
    """Run every DAG twice, the second time over fewer forms; returns the failures, and whether there is a page."""
    month = demo_regions.this_month().subtract(months=1)
    quarter = demo_regions.this_month().first_of("quarter").subtract(months=3)
    periods = {
        "bi_monthly": f"{month:YYYY-MM}",
        "bi_quarterly": f"{quarter.year}-Q{quarter.quarter}",
        "bi_weekly": f"{month:YYYY-MM}",
    }
    requests = [
        run_dags.RunRequest(name, triggered=("compatible", {"period": period})) for name, period in periods.items()
    ]
    with services.api() as api:
        run_dags.run_and_wait(api, *requests, seconds=600)
        with servers.postgres.connect(demo_regions.DEMO_DATABASES["eu"]) as admin:
            admin.execute(_HIDE_INSTITUTIONS_SQL)
        # The second time, runs are cleared: the monthly one then has fewer stage tasks.
        states = run_dags.run_and_wait(api, *requests, seconds=600)
        states |= _backfill(api, servers, periods["bi_monthly"])
        plugins = run_dags.api_request(api, "GET", "/plugins")["plugins"]
    [plugin] = [plugin for plugin in plugins if plugin["name"] == "meg_bi"]
    failed = [f"{name} failed" for name, runs in states.items() if set(runs.values()) != {"success"}]
    return failed, "yes" if plugin.get("external_views") else "no"


def _backfill(api: ApiClient, servers: embedded_stack.DatabaseServers, month: str) -> dict[str, dict[str, str]]:
    """Let bi_backfill load a slice that the ledger has lost, then audit the month; returns the states of its runs."""
    with servers.mongo.client() as client:
        client[embedded_stack.LIVE_DATABASE]["bi_loads"].delete_one({"_id": f"monthly_submissions:eu:{month}"})
    missing = {"from": month, "jobs": ["monthly_submissions"]}
    audit = {**missing, "only_missing": False, "dry_run": True}
    states: dict[str, str] = {}
    for run_id, conf in (("compatible", missing), ("compatible-audit", audit)):
        request = run_dags.RunRequest("bi_backfill", triggered=(run_id, conf))
        states |= run_dags.run_and_wait(api, request, seconds=300)["bi_backfill"]
    return {"bi_backfill": states}


def _integrity_problems(environment: dict[str, str]) -> list[str]:
    """The failures of Astronomer's integrity test."""
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(ROOT / ".astro")]
    result = subprocess.run(test, env=environment, check=False, capture_output=True, text=True)
    return [f"the integrity test of .astro: {result.stdout[-1500:]}"] if result.returncode else []


def _notification_problems(environment: dict[str, str]) -> list[str]:
    """The failures of bi_watch, which reports the earlier months as late once in two runs, and of bi_digest."""
    problems = []
    for dag_id, connection, runs, expected in (
        ("bi_watch", "AIRFLOW_CONN_BI_NOTIFY", 2, ["warning"]),
        ("bi_digest", "AIRFLOW_CONN_BI_DIGEST", 1, ["info"]),
    ):
        with webhook_server.listening() as listener:
            variables = {
                **environment,
                "BI_START_DATE": demo_regions.this_month().subtract(months=3).to_date_string(),
                connection: listener.connection(),
            }
            command = [sys.executable, "-m", "airflow", "dags", "test", dag_id]
            results = [
                subprocess.run(command, env=variables, check=False, capture_output=True, text=True) for _ in range(runs)
            ]
        problems += [f"{dag_id}: {run.stdout[-1500:]}{run.stderr[-1500:]}" for run in results if run.returncode]
        types = [message["type"] for message in listener.messages]
        if types != expected:
            problems.append(f"{dag_id} sent {types}; expected {expected}")
    return problems


def _digest(documents: dict[str, list[dict[str, Any]]]) -> str:
    """The digest of every document's bytes, without load metadata."""
    digest = hashlib.sha256()
    for document in (document for name in sorted(documents) for document in documents[name]):
        digest.update(bson.encode({name: value for name, value in document.items() if name not in _LOAD_METADATA}))
    return digest.hexdigest()[:12]


def _table(results: dict[str, dict[str, Any]], current: str) -> Table:
    columns = ("Airflow", "postgres", "mongo", "slices", "documents", "seconds", "data", "page")
    table = Table(*columns, title="All DAGs on each supported Airflow")
    for name, result in results.items():
        if "versions" not in result:
            table.add_row(name, *[""] * 6, "did not run")
            continue
        versions = (result["versions"][provider] for provider in _PROVIDERS)
        counts = (str(result[count]) for count in ("slices", "documents", "seconds"))
        equality = "the same" if result["digest"] == results[current]["digest"] else "DIFFERENT"
        table.add_row(name, *versions, *counts, equality, result["page"])
    return table


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run_current_version(Path(sys.argv[1]))))
    else:
        sys.exit(main())
