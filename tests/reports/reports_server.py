"""Serves the page's app and a synchronous route in one event loop and thread pool, as Airflow's API server does."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI

from bi_ops.airflow.reports_connection import reports_client_settings
from bi_ops.reports.web import create_app


def version() -> dict[str, str]:
    """A synchronous route, as most of Airflow's are: it needs a thread of the pool."""
    return {"version": "1"}


if __name__ == "__main__":
    root = FastAPI()
    root.get("/version")(version)
    root.mount("/bi-reports", create_app(reports_client_settings))
    uvicorn.run(root, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
