"""Registers the reports page and the timetable with Airflow. Every task loads this file, so it imports little."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from typing import Any
from urllib.parse import urlencode, urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from bi_ops.airflow.timetable import PeriodTimetable
from bi_ops.airflow.ui_links import base_url

URL_PREFIX = "/bi-reports"
_PAGE_MODULES = ("bi_ops.airflow.reports_connection", "bi_ops.reports.web")
"""The modules that the page's app imports."""
_TASK_MODULES = (
    "airflow.providers.standard.operators.empty",
    "airflow.sdk.bases.sensor",
    "bi_ops.airflow.connections",
    "bi_ops.load.stage",
    "bi_ops.airflow.dag_factory",
    "bi_ops.load.publish",
    "dns.resolver",
    "pymongo.synchronous.auth",
)
"""The modules that a stage task imports; the first two are imported by `expand`."""


def _base_path() -> str:
    return urlsplit(base_url()).path


def _page_path() -> str:
    return f"{_base_path()}{URL_PREFIX}/"


@lru_cache
def _app() -> Any:
    """Created once, in a separate thread that Airflow does not need: it reads files, and imports what is missing."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view

    from bi_ops.airflow.reports_connection import reports_client_settings
    from bi_ops.reports.web import create_app

    # Airflow's own route chooses the login of the auth manager in force, and checks the page to return to.
    login_path = f"{_base_path()}/api/v2/auth/login?{urlencode({'next': _page_path()})}"
    return create_app(reports_client_settings, requires_access_view(AccessView.PLUGINS), login_path=login_path)


@lru_cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="bi-reports-app")


async def reports_app(scope: Any, receive: Any, send: Any) -> None:
    """The page's ASGI app, created at the first request: only the API server ever creates it."""
    app = await asyncio.get_running_loop().run_in_executor(_executor(), _app)
    await app(scope, receive, send)


_APPS = [{"app": reports_app, "url_prefix": URL_PREFIX, "name": "MEG BI reports"}]
_VIEWS = [
    {
        "name": "BI reports",
        "href": _page_path(),
        "url_route": "bi-reports",
        "destination": "nav",
        "nav_top_level": True,
    }
]

_TIMETABLES = [PeriodTimetable]


class MegBiPlugin(AirflowPlugin):
    """Adds the page "BI reports" to Airflow's navigation, and the schedule of the DAGs."""

    name = "meg_bi"
    fastapi_apps = _APPS
    external_views = _VIEWS
    timetables = _TIMETABLES

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Import what the scheduler's tasks and the API server's page need, before the first task or request does.

        LocalExecutor forks tasks from the scheduler, so that no task has to import it.
        """
        if "scheduler" in sys.argv and "LocalExecutor" in conf.get("core", "executor"):
            _import_modules(_TASK_MODULES)
        elif "api-server" in sys.argv:
            _import_modules(_PAGE_MODULES)


def _import_modules(names: Iterable[str]) -> None:
    for name in names:
        with suppress(ImportError):  # other versions of Airflow or the driver have it elsewhere
            import_module(name)
