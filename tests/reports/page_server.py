"""Runs the page's app on a MongoDB, without Airflow: the tests open it in seconds."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from dev import mongo
from dev.processes import Service, free_port, stop
from tests.conftest import ROOT


@contextmanager
def page_server(folder: Path, mongo_port: int, *, database: str = "bi", **settings: str) -> Iterator[str]:
    """Run a server with the page and a synchronous route; yields its URL."""
    connection = {
        "conn_type": "mongo",
        "host": "127.0.0.1",
        "port": mongo_port,
        "login": mongo.ADMIN,
        "password": "secret",
        "schema": database,
        "extra": {"authSource": "admin"},
    }
    environment = {
        **os.environ,
        **settings,
        "AIRFLOW_CONN_BI_REPORTS": json.dumps(connection),
        "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}",
    }
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.reports.reports_server", str(port)]
    service = Service("the page's server", command, log=folder / "server.log", environment=environment)

    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/version", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        service.wait_until(is_ready, seconds=60)
        yield url
    finally:
        stop(service)
