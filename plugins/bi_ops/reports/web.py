"""The page of the reports, within Airflow's UI: what is behind it in the API server. Everything here only reads.

Every route and dependency is asynchronous: a synchronous one would run in the thread pool of Airflow's own routes.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response

from bi_ops.errors import BiError, MongoUnavailableError, ReportError, ReportsUnavailableError
from bi_ops.reports import atlas
from bi_ops.reports.assets import vega_bundle
from bi_ops.reports.breaker import RETRY_SECONDS
from bi_ops.reports.csv_text import csv_text
from bi_ops.reports.definitions import Report, get_report, load_reports
from bi_ops.reports.execution import Steps
from bi_ops.reports.filters import Filters, ignored_filters
from bi_ops.reports.freshness import overview_steps
from bi_ops.reports.query import ReportResult, choice_steps, report_steps
from bi_ops.reports.reader import REQUEST_SECONDS, FindTarget, Reader, close_current_reader, current_reader
from bi_ops.reports.theme import THEMES
from bi_ops.settings import Settings

_STATIC = Path(__file__).parent / "static"
_MAX_VALUES = 200
_CHOICES_KEPT_FOR = 30  # seconds
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
FilterValues = Annotated[list[str], Query(default_factory=list, max_length=_MAX_VALUES)]
_ASKED = {"region", "institution", "form_type", "first", "last"}
T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """What one request reads, within one time limit.

    Attributes:
        reader: The connection.
        deadline: When the time limit ends, by the monotonic clock.
    """

    reader: Reader
    deadline: float

    async def run(self, steps: Steps[T]) -> T:
        """Run the steps."""
        return await self.reader.read(steps, self.deadline)

    async def database_name(self) -> str:
        """The name of the live database."""
        return await self.reader.database_name(self.deadline)


async def _reading(request: Request) -> Reading:
    return Reading(current_reader(request.app.state.find_target), time.monotonic() + REQUEST_SECONDS)


Reads = Annotated[Reading, Depends(_reading)]


def create_app(find_target: FindTarget, *dependencies: Any) -> FastAPI:
    """The app. Making it reads files, so the event loop of a server should not wait for it.

    Args:
        find_target: Where the reports are read; it may block.
        *dependencies: What each request must pass, such as Airflow's own check of who may see plugins.
    """
    app = FastAPI(
        title="MEG BI reports",
        dependencies=[Depends(each) for each in dependencies],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
    )
    app.state.find_target = find_target
    app.add_exception_handler(BiError, _told)
    app.middleware("http")(_with_headers)
    for name, media_type in (("page.html", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
        path = "/" if name == "page.html" else f"/{name}"
        app.get(path)(_static(name, media_type))
    app.get("/vega.js")(_vega)
    app.get("/api/page")(_page)
    app.get("/api/reports/{name}.csv")(_csv)  # before the next, which would take its name for a report's
    app.get("/api/reports/{name}")(_rows)
    app.get("/api/freshness")(_freshness)
    app.get("/bi.charts")(_charts)
    with suppress(ReportError):  # raised again for each request of the report
        load_reports()
    return app


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await close_current_reader()


async def _with_headers(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


async def _told(_request: Request, error: Exception) -> Response:
    """What is wrong, in words; what the reader asked for wrongly is the reader's, the rest the server's."""
    if isinstance(error, ReportError):
        return _json({"detail": str(error)}, 422)
    headers = {}
    if isinstance(error, MongoUnavailableError):
        wait = error.retry_after if isinstance(error, ReportsUnavailableError) else RETRY_SECONDS
        headers["Retry-After"] = str(wait)
    return _json({"detail": str(error)}, 503, headers)


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encoded at once: FastAPI's own way looks at each value first, which holds up the event loop ten times as long."""
    text = json.dumps(content, default=str, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")


def _static(name: str, media_type: str) -> Any:
    text = (_STATIC / name).read_text()

    async def answer() -> Response:
        return Response(text, media_type=media_type)

    return answer


async def _vega() -> Response:
    headers = {"Cache-Control": "private, max-age=86400"}
    return Response(await vega_bundle(), media_type="text/javascript", headers=headers)


async def _choices(reading: Reading) -> Mapping[str, list[str]]:
    return await reading.reader.read_cached(choice_steps, reading.deadline, _CHOICES_KEPT_FOR)


async def _filters(
    request: Request,
    reading: Reads,
    *,
    region: FilterValues,
    institution: FilterValues,
    form_type: FilterValues,
    first: str = "",
    last: str = "",
) -> Filters:
    """What the query string asks for: these names, and values that the collections hold."""
    unknown = set(request.query_params) - _ASKED
    if unknown:
        raise HTTPException(
            422, f"unknown filter {sorted(unknown)[0]!r}. Expected: one of {', '.join(sorted(_ASKED))}."
        )
    asked = {"region": region, "institution": institution, "form_type": form_type}
    if any(asked.values()):
        known = await _choices(reading)
        for name, values in asked.items():
            if strangers := set(values) - set(known[name]):
                raise HTTPException(422, f"unknown {name.replace('_', ' ')} {sorted(strangers)[0]!r}")
    return Filters(tuple(region), tuple(institution), tuple(form_type), first, last)


FiltersDep = Annotated[Filters, Depends(_filters)]


async def _read(name: str, filters: Filters, reading: Reading) -> tuple[Report, ReportResult]:
    report = get_report(name)
    return report, await reading.run(report_steps(report, filters))


async def _page(reading: Reads) -> Response:
    """What the page is made of: the reports, and what their filters may be set to."""
    public = {"name", "title", "question", "section", "columns", "spec", "collection"}
    return _json(
        {
            "choices": await _choices(reading),
            "reports": [report.model_dump(include=public) for report in load_reports()],
            "themes": THEMES,
        }
    )


async def _rows(name: str, filters: FiltersDep, reading: Reads) -> Response:
    report, found = await _read(name, filters, reading)
    return _json(
        {
            "rows": found.rows,
            "truncated": found.truncated,
            "period": found.period,
            "ignored": list(ignored_filters(report.job, filters)),
        }
    )


async def _csv(name: str, filters: FiltersDep, reading: Reads) -> Response:
    report, found = await _read(name, filters, reading)
    headers = {"Content-Disposition": f'attachment; filename="{report.name}.csv"'}
    return Response(csv_text(report, found), media_type="text/csv; charset=utf-8", headers=headers)


async def _freshness(reading: Reads) -> Response:
    settings = Settings.from_env()
    found = await reading.run(overview_steps(await reading.database_name(), settings))
    return _json(asdict(found))


async def _charts(reading: Reads) -> Response:
    headers = {"Content-Disposition": 'attachment; filename="meg-bi.charts"'}
    text = atlas.build_dashboard(await reading.database_name())
    return Response(text, media_type="application/json", headers=headers)
