"""`make compat`: runs all DAGs on each supported Airflow and Python, and compares the documents that they publish."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bson
from packaging.version import Version
from rich.table import Table

from bi_ops.catalog.jobs import JOBS
from dev import airflow, demo_meg, demo_regions, embedded_stack, mongo, postgres, run_dags, webhook_server
from dev.api_client import ApiClient
from dev.compat_environments import (
    ENVIRONMENTS,
    MWAA,
    WORK_DIR,
    Environment,
    ensure_venv,
    find_python,
    select_environments,
)
from dev.console import console
from dev.mwaa_trial import try_bundle
from dev.processes import StackError

ROOT = Path(__file__).parents[1]
_FORMS = {"eu": 40, "uk": 15}
_PROVIDERS = ("apache-airflow-providers-postgres", "apache-airflow-providers-mongo")
_LOAD_METADATA = ("loaded_at", "run_id")
_HIDE_INSTITUTIONS_SQL = """
UPDATE megforms_institution SET is_demo = true
WHERE id IN (SELECT id FROM megforms_institution WHERE NOT is_demo ORDER BY id LIMIT 2)
"""
"""Marks two institutions as demos, which excludes them and their forms from every job."""


def main() -> int:
    """Run each environment in turn, print two tables, and return the exit status: 1 where one failed or differs."""
    if external := {postgres.URL_ENV_VAR, mongo.URL_ENV_VAR} & set(os.environ):
        console.print(f"Each environment needs its own databases. Hint: unset {', '.join(external)}", style="red")
        return 1
    try:
        selected = select_environments(os.environ.get("ONLY", ""))
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    results: dict[Environment, dict[str, Any]] = {}
    for environment in selected:
        results[environment] = result = _run(environment)
        console.print(f"{environment.name}: {_outcome(result)}", markup=False, highlight=False)
    trials = {item.airflow: _try_bundle(item.airflow) for item in selected if item.platform == MWAA}
    console.print(_details(results))
    if trials:
        console.print(_trials(trials))
    console.print(_matrix(results))
    digests = {result["digest"] for result in results.values() if "digest" in result}
    if len(digests) > 1:
        console.print("The environments published different documents.", style="red")
    return int(len(digests) != 1 or any(result.get("error") for result in [*results.values(), *trials.values()]))


def _try_bundle(airflow_version: str) -> dict[str, Any]:
    with console.status(f"The bundle for Amazon MWAA with Airflow {airflow_version}"):
        result = try_bundle(airflow_version)
    outcome = f"The bundle for Amazon MWAA with Airflow {airflow_version}: {_outcome(result)}"
    console.print(outcome, markup=False, highlight=False, soft_wrap=True)
    return result


def _run(environment: Environment) -> dict[str, Any]:
    """The result of one environment: that of `run_current_version`, or an `error`, or why it is `skipped`."""
    if not (interpreter := find_python(environment.python)):
        return {"skipped": f"no Python {environment.python} is installed"}
    try:
        python = ensure_venv(environment, interpreter)
    except StackError as error:
        return {"error": str(error)}
    with console.status(environment.name):
        return _run_in_subprocess(python, WORK_DIR / environment.name / "stack")


def _outcome(result: dict[str, Any]) -> str:
    if "skipped" in result:
        return f"skipped: {result['skipped']}"
    return result.get("error") or "ok"


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
        return {"error": f"{process.stdout[-2000:]}{process.stderr[-2000:]}"}
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
    return digest.hexdigest()


def _details(results: dict[Environment, dict[str, Any]]) -> Table:
    """What each environment that ran has loaded, and with which providers."""
    columns = ("environment", "postgres", "mongo", "documents", "s", "digest", "page")
    table = Table(*columns, title="All DAGs in each environment")
    for environment, result in results.items():
        if "versions" in result:
            versions = (result["versions"][provider] for provider in _PROVIDERS)
            figures = (str(result[name])[:6] for name in ("documents", "seconds", "digest", "page"))
            table.add_row(environment.name, *versions, *figures)
    return table


def _trials(results: dict[str, dict[str, Any]]) -> Table:
    """What the bundle of each Airflow on MWAA has loaded, and which packages are outside Airflow's constraints."""
    table = Table(
        "Airflow", "bundle", "slices", "documents", "outside the constraints", title="Bundles for Amazon MWAA"
    )
    for name, result in results.items():
        outcome = "failed" if result.get("error") else _outcome(result).split(":")[0]
        outside = ", ".join(f"{package} {versions}" for package, versions in result.get("outside", {}).items())
        table.add_row(name, outcome, *(str(result.get(figure, "")) for figure in ("slices", "documents")), outside)
    return table


def _matrix(results: dict[Environment, dict[str, Any]]) -> Table:
    """Airflow by Python: `ok`, `failed` or `skipped`; empty where it is not run."""
    pythons = list(dict.fromkeys(environment.python for environment in ENVIRONMENTS))
    pythons.sort(key=Version)
    table = Table("Airflow", *pythons, title="Airflow by Python")
    rows = dict.fromkeys((environment.airflow, environment.platform) for environment in results)
    for airflow_version, platform in rows:
        cells = {
            environment.python: "failed" if result.get("error") else _outcome(result).split(":")[0]
            for environment, result in results.items()
            if (environment.airflow, environment.platform) == (airflow_version, platform)
        }
        table.add_row(f"{airflow_version} {platform}".strip(), *(cells.get(python, "") for python in pythons))
    return table


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run_current_version(Path(sys.argv[1]))))
    else:
        sys.exit(main())
