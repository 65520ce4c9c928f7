"""What the tests of the page without Airflow share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser
from pymongo.database import Database

from bi_ops.mongo.store import Store
from dev import mongo
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from dev.mongo import Mongo
from tests.reports.browser import launch_chromium
from tests.reports.client_data import insert_client_data
from tests.reports.page_data import insert_page_data
from tests.reports.page_server import page_server

SETTINGS = {"MEG_REGIONS": "eu,uk", "BI_START_DATE": "2026-08-01"}


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    """A MongoDB of its own, which a test may freeze."""
    if os.environ.get(mongo.URL_ENV_VAR):
        pytest.skip("the tests' MongoDB is not of this machine")
    with mongo.running(tmp_path_factory.mktemp("mongod"), "secret") as server:
        yield server


@pytest.fixture(scope="module")
def served(mongod: Mongo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """The databases with the documents of `page_data`, and the page's address."""
    folder = tmp_path_factory.mktemp("page")
    with mongod.client() as client, page_server(folder, mongod.port, **SETTINGS) as address:
        store = Store(client, "bi")
        insert_page_data(store)
        yield store, f"{address}/bi-reports/"


@pytest.fixture(scope="module")
def clients_url(mongod: Mongo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page with the documents of `client_data`."""
    folder = tmp_path_factory.mktemp("clients")
    with mongod.client() as client, page_server(folder, mongod.port, database="clients", **SETTINGS) as address:
        insert_client_data(Store(client, "clients"))
        yield f"{address}/bi-reports/"


@pytest.fixture
def url(served: tuple[Store, str]) -> str:
    """The page's address."""
    return served[1]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; its own event loop runs only during the module."""
    with launch_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def database(servers: DatabaseServers) -> Iterator[Database[dict[str, Any]]]:
    """The live database."""
    with servers.mongo.client() as client:
        yield client[LIVE_DATABASE]
