"""The databases that tests share: real servers, emptied before each test that uses them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def stack_folder(name: str) -> Path:
    """The folder of this process's own stack: with `pytest -n` several test processes run side by side."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return ROOT / ".local" / (f"{name}-{worker}" if worker else name)


STACK = stack_folder("test")
LONGEST = (
    "tests/chaos/test_airflow_faults.py",
    "tests/chaos/test_task_faults.py",
    "tests/airflow/test_operator_actions.py",
    "tests/airflow/test_scheduler.py",
    "tests/compose/test_compose.py",
    "tests/dev/test_embedded_airflow.py",
    "tests/airflow/test_backfill.py",
    "tests/dev/test_documented_commands.py",
    "tests/airflow/test_celery.py",
    "tests/reports/test_page.py",
    "tests/airflow/test_command_line.py",
    "tests/reports/test_charts.py",
)
"""The files that take longest, in this order. Others with the marker `airflow` follow."""
MONGOD_PARAMETERS = {"transactionLifetimeLimitSeconds": "2", "enableTestCommands": "1"}

# Before anything imports Airflow, which reads them once.
os.environ["AIRFLOW_HOME"] = str(STACK / "airflow")
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(ROOT / "dags")
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(ROOT / "plugins")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev import demo_meg
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers, databases, stack_lock
from tests.meg_factory import MegFactory, connect_as_reader
from tests.populated_store import load_all_collections


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-faults", action="store_true", help="inject hundreds of faults, as `make chaos` does")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest, so that the processes of `pytest -n` end together."""
    items.sort(key=_start_order)


def _start_order(item: pytest.Item) -> int:
    file = item.path.relative_to(ROOT).as_posix()
    if file in LONGEST:
        return LONGEST.index(file)
    return len(LONGEST) + (item.get_closest_marker("airflow") is None)


@pytest.fixture(scope="session")
def all_faults(request: pytest.FixtureRequest) -> bool:
    """Whether each kind of fault is injected many times, or a few."""
    return bool(request.config.getoption("--all-faults"))


@pytest.fixture(scope="session")
def servers() -> Iterator[DatabaseServers]:
    """PostgreSQL and MongoDB, with transactions that a dead client holds for two seconds, not sixty."""
    with stack_lock(STACK), databases(STACK, MONGOD_PARAMETERS) as database_servers:
        for region in ("eu", "uk"):
            demo_meg.seed_database(database_servers.postgres, f"meg_{region}", None)
        yield database_servers


@pytest.fixture
def store(servers: DatabaseServers) -> Iterator[Store]:
    """Both MongoDB databases, empty, through the pipeline's own account."""
    with servers.mongo_admin.client() as admin:
        for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging"):
            admin.drop_database(name)
    with servers.mongo.client() as client:
        yield Store(client, LIVE_DATABASE)


@pytest.fixture(scope="module")
def populated_store(servers: DatabaseServers) -> Iterator[Store]:
    """Both MongoDB databases, with every collection of two regions in them."""
    with load_all_collections(servers) as store:
        yield store


@pytest.fixture
def meg_factory(servers: DatabaseServers) -> Iterator[MegFactory]:
    """The tables of the region eu's MEG, empty, to be filled."""
    with servers.postgres.connect("meg_eu") as connection:
        yield MegFactory(connection)


@pytest.fixture
def meg(servers: DatabaseServers) -> Iterator[MegReader]:
    """The region eu's MEG, through the pipeline's own role."""
    with MegReader("eu", connect_as_reader(servers, "meg_eu"), application_name="test") as opened:
        yield opened
