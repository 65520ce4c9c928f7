"""Tests that each `airflow` and `make` command of the documentation works as it is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev import airflow, run_dags
from dev.api_client import ApiClient
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from dev.processes import child_env
from tests.airflow_env import NO_SCHEDULED_RUNS, new_airflow
from tests.conftest import ROOT, STACK
from tests.dev.documented_commands import documented_commands
from tests.load_helpers import load_slice, make_slice, monthly_slice, wait_until
from tests.meg_factory import MegFactory, connect_as_reader

pytestmark = pytest.mark.airflow

NOT_RUN = {
    "airflow celery worker": "needs Redis, and never ends; tests/airflow/test_celery.py runs it",
    "airflow dags test": "without its arguments; with them it is in README.md",
    "make audit": "needs pypi.org's own API",
    "make bench": "takes an hour",
    "make bench ONLY=path,meg": "takes minutes",
    "make bench QUICK=1": "takes minutes",
    "make bench-workers": "takes minutes",
    "make chaos": "takes some ten minutes",
    "make check": "takes a minute, and CI runs it by itself",
    "make compat": "takes minutes, and installs other versions of Airflow",
    "make pins": "resolves every version from the package index",
    "make release": "commits and tags; tests/dev/test_release.py runs its parts",
    "make run": "takes minutes; tests/dev/test_embedded_airflow.py runs its parts",
    "make test": "is what runs this test",
    "make test-fast": "runs a part of what `make test` runs",
    "make up": "never ends",
}
"""The commands that cannot run here or take too long, with the reason."""
OLD_DATABASE = "bi_old"
COMMANDS = [command for command in documented_commands() if command not in NOT_RUN]
SHELL_COMMANDS = [command for command in COMMANDS if command.startswith(("airflow db ", "airflow dags test "))]
MAKE_COMMANDS = [command for command in COMMANDS if command.startswith("make ")]
STACK_COMMANDS = [command for command in COMMANDS if command not in SHELL_COMMANDS and command not in MAKE_COMMANDS]


def run(command: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a command as a user types it."""
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}:\n{result.stdout[-4000:]}"


@pytest.fixture(scope="module")
def connections(servers: DatabaseServers) -> dict[str, str]:
    """The connections of two regions with the same data, one of which is loaded, and of an old system."""
    with servers.postgres.connect("meg_eu") as connection:
        meg_factory = MegFactory(connection)
        meg_factory.bulk_forms(11)
        meg_factory.auditor(1_000_000)
    with servers.mongo_admin.client() as admin:
        for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging", OLD_DATABASE):
            admin.drop_database(name)
    with (
        servers.mongo.client() as client,
        servers.mongo_admin.client() as admin,
        MegReader("eu", connect_as_reader(servers, "meg_eu"), application_name="test") as meg,
    ):
        store = Store(client, LIVE_DATABASE)
        for name in ("monthly_submissions", "institutions"):
            load_slice(store, meg, make_slice(name, monthly_slice().as_of))
            admin[OLD_DATABASE][name].insert_many(store.live[name].find())
        old = admin[OLD_DATABASE]["monthly_submissions"].find()
        admin[OLD_DATABASE]["submissions_eu"].insert_many(
            {**document, "form": document["form_id"], "month": document["period"]} for document in old
        )
        admin[OLD_DATABASE]["institutions"].update_many({}, {"$set": {"server": "eu.example.com"}})
    connections = servers.connections({"eu": "meg_eu", "au": "meg_eu"})
    old_connection = json.loads(connections["AIRFLOW_CONN_BI_MONGO"])
    old_connection |= {
        "schema": OLD_DATABASE,
        "login": servers.mongo_admin.login,
        "password": servers.mongo_admin.password,
    }
    return {**connections, "AIRFLOW_CONN_BI_OLD": json.dumps(old_connection)}


@pytest.fixture(scope="module")
def shell(connections: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the README's shell, with a metadata database of its own."""
    environment = {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "MEG_REGIONS": "eu",
        "BI_AGGREGATE": "1",
        "PYTHONPATH": str(ROOT / "tests" / "policy"),
        **connections,
    }
    return child_env(STACK, environment)


@pytest.fixture(scope="module")
def stack(servers: DatabaseServers, connections: dict[str, str]) -> Iterator[tuple[airflow.AirflowServices, ApiClient]]:
    """A running Airflow whose DAGs are not paused."""
    settings = {**NO_SCHEDULED_RUNS, "MEG_REGIONS": "au", "BI_MAX_MAPPED_TASKS": "1", **connections}
    environment = new_airflow(servers, STACK, settings)
    with airflow.run_services(STACK, environment, servers.secret) as running, running.api() as api:
        for dag_id in ("bi_monthly", "bi_quarterly", "bi_weekly", "bi_backfill"):
            run_dags.wait_for_dag(api, dag_id)
            run_dags.api_request(api, "PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        yield running, api


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, with its environment, in which a command may write and delete."""
    copy = tmp_path / "project"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".local", "dist", ".*_cache", "__pycache__")
    )
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


def dag_runs(api: ApiClient) -> dict[str, str]:
    query: dict[str, Any] = {"limit": 100}
    runs = run_dags.api_request(api, "GET", "/dags/~/dagRuns", params=query)["dag_runs"]
    return {f"{run['dag_id']} {run['dag_run_id']}": run["state"] for run in runs}


def test_airflow_commands_in_shell(shell: dict[str, str]) -> None:
    """Commands that need connections only succeed in the order of the documents."""
    for command in SHELL_COMMANDS:
        run(command, ROOT, shell)


def test_airflow_commands_on_stack(stack: tuple[airflow.AirflowServices, ApiClient]) -> None:
    """Each command that triggers DAG runs triggers at least one, and all runs succeed."""
    running, api = stack
    for command in STACK_COMMANDS:
        before = dag_runs(api)
        run(command, ROOT, running.environment)
        assert dag_runs(api).keys() - before.keys(), command
    wait_until(lambda: not {"queued", "running"} & set(dag_runs(api).values()), 240)
    assert set(dag_runs(api).values()) == {"success"}


@pytest.mark.parametrize("command", MAKE_COMMANDS)
def test_make_command(command: str, project: Path, connections: dict[str, str]) -> None:
    """Targets that take seconds succeed in a copy of the project."""
    own = {"AIRFLOW_HOME": str(project / ".local" / "airflow"), "MEG_REGIONS": "eu", "BI_AGGREGATE": "1"}
    run(command, project, {**os.environ, **own, **connections})


@pytest.mark.parametrize("command", [command for command in documented_commands() if command.startswith("make ")])
def test_make_target_exists(command: str) -> None:
    """Every documented target exists, also those that take too long to run."""
    run(command.replace("make ", "make --dry-run ", 1), ROOT, os.environ)


def test_not_run_commands_are_documented() -> None:
    """NOT_RUN lists no command that the documents no longer show."""
    assert NOT_RUN.keys() - documented_commands().keys() == set()
