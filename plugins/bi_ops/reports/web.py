"""The web app of the reports page in Airflow's UI: the page's files and a read-only JSON API.

Every route and dependency is asynchronous: a synchronous one would run in the thread pool of Airflow's own routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler

from bi_ops.errors import BiError, MongoUnavailableError, ReportError, ReportsUnavailableError
from bi_ops.reports import atlas
from bi_ops.reports.async_reader import GetClientSettings, close_current_reader
from bi_ops.reports.chart_spec import chart_rows, chart_spec, time_field
from bi_ops.reports.circuit_breaker import RETRY_SECONDS
from bi_ops.reports.client_routes import router
from bi_ops.reports.csv_text import csv_text
from bi_ops.reports.definitions import get_report, load_reports
from bi_ops.reports.filters import ignored_filters
from bi_ops.reports.freshness import overview_steps
from bi_ops.reports.login_page import login_responses
from bi_ops.reports.report_queries import first_month_steps, institution_steps, report_steps
from bi_ops.reports.theme import THEMES
from bi_ops.reports.vega_bundle import vega_bundle
from bi_ops.reports.web_dependencies import FiltersDep, ReaderDep, VersionedReaderDep, json_response
from bi_ops.settings import Settings

_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def create_app(get_client_settings: GetClientSettings, *dependencies: Any, login_path: str = "") -> FastAPI:
    """Create the app. This reads files, so it should not run in a server's event loop.

    Args:
        get_client_settings: Returns the target of the reports' connection; it may block.
        *dependencies: FastAPI dependencies of every request, such as Airflow's check of access to plugins.
        login_path: Where a browser without a login is sent that opens the page; its parameter `next` leads back.
    """
    app = FastAPI(
        title="MEG BI reports",
        dependencies=[Depends(dependency) for dependency in dependencies],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
    )
    app.state.get_client_settings = get_client_settings
    app.state.login_response = login_responses(login_path) if login_path else None
    app.add_exception_handler(BiError, _error_response)
    app.add_exception_handler(HTTPException, _login_or_error)
    app.middleware("http")(_add_security_headers)
    app.get("/")(_static("page.html", "text/html"))
    for suffix, media_type in ((".css", "text/css"), (".js", "text/javascript")):
        for file in _STATIC.glob(f"*{suffix}"):
            app.get(f"/{file.name}")(_static(file.name, media_type))
    app.get("/vega.js")(_vega)
    app.get("/api/page")(_page)
    app.get("/api/reports/{name}.csv")(_csv)  # before the next route, which would match it too
    app.get("/api/reports/{name}")(_report)
    app.get("/api/freshness")(_freshness)
    app.get("/bi.charts")(_atlas_dashboard)
    app.include_router(router)
    with suppress(ReportError):  # raised again for each request of the report
        load_reports()
    return app


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await close_current_reader()


async def _add_security_headers(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _error_response(_request: Request, error: Exception) -> Response:
    """The error's message: status 422 for an invalid request, 503 for the rest."""
    if isinstance(error, ReportError):
        return json_response({"detail": str(error)}, 422)
    headers = {}
    if isinstance(error, MongoUnavailableError):
        seconds = error.retry_after if isinstance(error, ReportsUnavailableError) else RETRY_SECONDS
        headers["Retry-After"] = str(seconds)
    return json_response({"detail": str(error)}, 503, headers)


async def _login_or_error(request: Request, error: Any) -> Response:
    """The way to the login where a browser opens the page itself; an error for every other request."""
    opens_page = request.url.path.endswith("/") and "text/html" in request.headers.get("Accept", "")
    if error.status_code == HTTPStatus.UNAUTHORIZED and opens_page and request.app.state.login_response:
        response: Response = request.app.state.login_response()
        return response
    return await http_exception_handler(request, error)


def _static(name: str, media_type: str) -> Any:
    text = (_STATIC / name).read_text()

    async def static_file() -> Response:
        return Response(text, media_type=media_type)

    return static_file


async def _vega() -> Response:
    headers = {"Cache-Control": "private, max-age=86400"}
    return Response(await vega_bundle(), media_type="text/javascript", headers=headers)


async def _page(reader: VersionedReaderDep) -> Response:
    """The reports' definitions and the filters' options."""
    public = {"name", "title", "question", "section", "columns", "collection", "empty_message"}
    return json_response(
        {
            "filter_options": await reader.filter_options(),
            "institutions": await reader.read(institution_steps, "institutions"),
            "first_month": await reader.read(first_month_steps, "first month"),
            "reports": [report.model_dump(include=public) for report in load_reports()],
            "themes": THEMES,
        }
    )


async def _report(name: str, filters: FiltersDep, reader: VersionedReaderDep) -> Response:
    report, regions = get_report(name), Settings.from_env().regions
    result = await reader.read(lambda: report_steps(report, filters, regions), "report", name, filters, regions)
    options = await reader.filter_options()
    return json_response(
        {
            "rows": result.rows,
            "spec": chart_spec(report, result.rows, result.coverage, options),
            "chart_rows": chart_rows(report, result.rows, result.coverage) if time_field(report) else None,
            "partial": result.coverage.partial,
            "truncated": result.truncated,
            "period": result.period,
            "ignored": list(ignored_filters(report.job, filters)),
        }
    )


async def _csv(name: str, filters: FiltersDep, reader: ReaderDep) -> Response:
    report = get_report(name)
    result = await reader.run(report_steps(report, filters, all_rows=True))  # rare, and too large to be cached
    headers = {"Content-Disposition": f'attachment; filename="{report.name}.csv"'}
    return Response(csv_text(report, result), media_type="text/csv; charset=utf-8", headers=headers)


async def _freshness(reader: ReaderDep) -> Response:
    settings = Settings.from_env()
    return json_response(await reader.run(overview_steps(await reader.database_name(), settings)))


async def _atlas_dashboard(reader: ReaderDep) -> Response:
    headers = {"Content-Disposition": 'attachment; filename="meg-bi.charts"'}
    text = atlas.build_dashboard(await reader.database_name())
    return Response(text, media_type="application/json", headers=headers)
