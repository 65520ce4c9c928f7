"""The web app of the reports page in Airflow's UI: the page's files and a read-only JSON API.

Every route and dependency is asynchronous: a synchronous one would run in the thread pool of Airflow's own routes.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import RedirectResponse

from bi_ops.errors import BiError, MongoUnavailableError, ReportError, ReportsUnavailableError
from bi_ops.reports import atlas
from bi_ops.reports.async_reader import (
    REQUEST_SECONDS,
    AsyncReader,
    GetClientSettings,
    close_current_reader,
    current_reader,
)
from bi_ops.reports.chart_spec import chart_rows, chart_spec, time_field
from bi_ops.reports.circuit_breaker import RETRY_SECONDS
from bi_ops.reports.csv_text import csv_text
from bi_ops.reports.definitions import Report, get_report, load_reports
from bi_ops.reports.filters import Filters, ignored_filters
from bi_ops.reports.freshness import overview_steps
from bi_ops.reports.query_execution import Steps
from bi_ops.reports.report_queries import ReportResult, filter_option_steps, first_month_steps, report_steps
from bi_ops.reports.theme import THEMES
from bi_ops.reports.vega_bundle import vega_bundle
from bi_ops.settings import Settings

_STATIC = Path(__file__).parent / "static"
_MAX_VALUES = 200
_OPTIONS_CACHE_SECONDS = 30
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
FilterValues = Annotated[list[str], Query(default_factory=list, max_length=_MAX_VALUES)]
_FILTER_PARAMS = {"region", "institution", "form_type", "from_month", "to_month"}
T = TypeVar("T")


@dataclass(frozen=True)
class RequestReader:
    """Reads MongoDB for one request, within one time limit.

    Attributes:
        shared: The event loop's reader.
        deadline: When the time limit ends, by the monotonic clock.
    """

    shared: AsyncReader
    deadline: float

    async def run(self, steps: Steps[T]) -> T:
        """Run the queries and return their result."""
        return await self.shared.read(steps, self.deadline)

    async def run_cached(self, make_steps: Callable[[], Steps[T]], seconds: float) -> T:
        """The result of the queries, cached for some seconds."""
        return await self.shared.read_cached(make_steps, self.deadline, seconds)

    async def database_name(self) -> str:
        """The name of the live database."""
        return await self.shared.database_name(self.deadline)


async def _request_reader(request: Request) -> RequestReader:
    return RequestReader(current_reader(request.app.state.get_client_settings), time.monotonic() + REQUEST_SECONDS)


ReaderDep = Annotated[RequestReader, Depends(_request_reader)]


def create_app(get_client_settings: GetClientSettings, *dependencies: Any, login_path: str = "") -> FastAPI:
    """Create the app. This reads files, so it should not run in a server's event loop.

    Args:
        get_client_settings: Returns the target of the reports' connection; it may block.
        *dependencies: FastAPI dependencies of every request, such as Airflow's check of access to plugins.
        login_path: Where a browser without a login is sent that opens the page; it leads back to the page.
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
    app.state.login_path = login_path
    app.add_exception_handler(BiError, _error_response)
    app.add_exception_handler(HTTPException, _login_or_error)
    app.middleware("http")(_add_security_headers)
    app.get("/")(_static("page.html", "text/html"))
    app.get("/page.css")(_static("page.css", "text/css"))
    for module in _STATIC.glob("*.js"):
        app.get(f"/{module.name}")(_static(module.name, "text/javascript"))
    app.get("/vega.js")(_vega)
    app.get("/api/page")(_page)
    app.get("/api/reports/{name}.csv")(_csv)  # before the next route, which would match it too
    app.get("/api/reports/{name}")(_report)
    app.get("/api/freshness")(_freshness)
    app.get("/bi.charts")(_atlas_dashboard)
    with suppress(ReportError):  # raised again for each request of the report
        load_reports()
    return app


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await close_current_reader()


async def _add_security_headers(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


async def _error_response(_request: Request, error: Exception) -> Response:
    """The error's message: status 422 for an invalid request, 503 for the rest."""
    if isinstance(error, ReportError):
        return _json({"detail": str(error)}, 422)
    headers = {}
    if isinstance(error, MongoUnavailableError):
        seconds = error.retry_after if isinstance(error, ReportsUnavailableError) else RETRY_SECONDS
        headers["Retry-After"] = str(seconds)
    return _json({"detail": str(error)}, 503, headers)


async def _login_or_error(request: Request, error: Any) -> Response:
    """A redirect to the login where a browser opens the page itself; an error for every other request."""
    opens_page = request.url.path.endswith("/") and "text/html" in request.headers.get("Accept", "")
    if error.status_code == HTTPStatus.UNAUTHORIZED and opens_page and request.app.state.login_path:
        return RedirectResponse(request.app.state.login_path)
    return await http_exception_handler(request, error)


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encode directly: FastAPI's encoder inspects each value first and blocks the event loop ten times as long."""
    text = json.dumps(content, default=str, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")


def _static(name: str, media_type: str) -> Any:
    text = (_STATIC / name).read_text()

    async def static_file() -> Response:
        return Response(text, media_type=media_type)

    return static_file


async def _vega() -> Response:
    headers = {"Cache-Control": "private, max-age=86400"}
    return Response(await vega_bundle(), media_type="text/javascript", headers=headers)


async def _filter_options(reader: RequestReader) -> Mapping[str, list[str]]:
    return await reader.run_cached(filter_option_steps, _OPTIONS_CACHE_SECONDS)


async def _filters(
    request: Request,
    reader: ReaderDep,
    *,
    region: FilterValues,
    institution: FilterValues,
    form_type: FilterValues,
    from_month: str = "",
    to_month: str = "",
) -> Filters:
    """The filters of the query string, with names and values checked."""
    unknown = set(request.query_params) - _FILTER_PARAMS
    if unknown:
        raise HTTPException(
            422, f"unknown filter {sorted(unknown)[0]!r}. Expected: one of {', '.join(sorted(_FILTER_PARAMS))}."
        )
    selected = {"region": region, "institution": institution, "form_type": form_type}
    if any(selected.values()):
        options = await _filter_options(reader)
        for name, values in selected.items():
            if unknown_values := set(values) - set(options[name]):
                raise HTTPException(422, f"unknown {name.replace('_', ' ')} {sorted(unknown_values)[0]!r}")
    return Filters(tuple(region), tuple(institution), tuple(form_type), from_month, to_month)


FiltersDep = Annotated[Filters, Depends(_filters)]


async def _read(
    name: str, filters: Filters, reader: RequestReader, *, all_rows: bool = False
) -> tuple[Report, ReportResult]:
    report, regions = get_report(name), Settings.from_env().regions
    return report, await reader.run(report_steps(report, filters, regions, all_rows=all_rows))


async def _page(reader: ReaderDep) -> Response:
    """The reports' definitions and the filters' options."""
    public = {"name", "title", "question", "section", "columns", "collection", "empty_message"}
    return _json(
        {
            "filter_options": await _filter_options(reader),
            "first_month": await reader.run(first_month_steps()),
            "reports": [report.model_dump(include=public) for report in load_reports()],
            "themes": THEMES,
        }
    )


async def _report(name: str, filters: FiltersDep, reader: ReaderDep) -> Response:
    report, result = await _read(name, filters, reader)
    options = await _filter_options(reader)
    return _json(
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
    report, result = await _read(name, filters, reader, all_rows=True)
    headers = {"Content-Disposition": f'attachment; filename="{report.name}.csv"'}
    return Response(csv_text(report, result), media_type="text/csv; charset=utf-8", headers=headers)


async def _freshness(reader: ReaderDep) -> Response:
    settings = Settings.from_env()
    overview = await reader.run(overview_steps(await reader.database_name(), settings))
    return _json(asdict(overview))


async def _atlas_dashboard(reader: ReaderDep) -> Response:
    headers = {"Content-Disposition": 'attachment; filename="meg-bi.charts"'}
    text = atlas.build_dashboard(await reader.database_name())
    return Response(text, media_type="application/json", headers=headers)
