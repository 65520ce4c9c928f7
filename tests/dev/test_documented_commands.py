"""Tests that each `airflow` and `make` command of the documentation works as it is written.

`test_embedded_airflow.py` runs those that need a running Airflow.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from dev.processes import child_env
from tests.conftest import ROOT, STACK
from tests.dev.documented_commands import MAKE_COMMANDS, NOT_RUN, SHELL_COMMANDS, documented_commands, run
from tests.load_helpers import load_slice, make_slice, monthly_slice
from tests.meg_factory import MegFactory, connect_as_reader

pytestmark = pytest.mark.airflow

OLD_DATABASE = "bi_old"


@pytest.fixture(scope="module")
def connections(servers: DatabaseServers) -> dict[str, str]:
    """The connections of a region that is loaded, and of an old system."""
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
    connections = servers.connections({"eu": "meg_eu"})
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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, with its environment, in which a command may write and delete."""
    copy = tmp_path / "project"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".local", "dist", ".*_cache", "__pycache__")
    )
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


def test_airflow_commands_in_shell(shell: dict[str, str]) -> None:
    """Commands that need connections only succeed in the order of the documents."""
    for command in SHELL_COMMANDS:
        run(command, ROOT, shell)


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
