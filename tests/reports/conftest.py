"""What the browser tests of the page without Airflow share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from bi_ops.mongo.store import Store
from dev import mongo
from tests.reports.browser import launch_chromium
from tests.reports.page_data import insert_page_data
from tests.reports.page_server import page_server

SETTINGS = {"MEG_REGIONS": "eu,uk", "BI_START_DATE": "2026-08-01"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A MongoDB of its own with the data of `page_data`, and the page's address."""
    if os.environ.get(mongo.URL_ENV_VAR):
        pytest.skip("the tests' MongoDB is not of this machine")
    folder = tmp_path_factory.mktemp("page")
    with (
        mongo.running(folder, "secret") as server,
        server.client() as client,
        page_server(folder, server.port, **SETTINGS) as address,
    ):
        store = Store(client, "bi")
        insert_page_data(store)
        yield store, f"{address}/bi-reports/"


@pytest.fixture
def url(served: tuple[Store, str]) -> str:
    """The page's address."""
    return served[1]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; its own event loop runs only during the module."""
    with launch_chromium() as browser:
        yield browser
