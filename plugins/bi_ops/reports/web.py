"""The page of the reports, within Airflow's UI: what is behind it in the API server. Everything here only reads."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse

from bi_ops.errors import BiError, ReportError
from bi_ops.reports import atlas
from bi_ops.reports.data import Rows, choices, read
from bi_ops.reports.definitions import Report, report_named, reports
from bi_ops.reports.filters import Filters, ignored
from bi_ops.reports.freshness import freshness
from bi_ops.reports.source import reading
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
Values = Annotated[list[str], Query(default_factory=list, max_length=_MAX_VALUES)]
_ASKED = {"region", "institution", "form_type", "first", "last"}


def make_app(*dependencies: Any) -> FastAPI:
    """The app.

    Args:
        *dependencies: What each request must pass, such as Airflow's own check of who may see plugins.
    """
    app = FastAPI(
        title="MEG BI reports",
        dependencies=[Depends(each) for each in dependencies],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
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
    return app


async def _with_headers(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


def _told(_request: Request, error: Exception) -> Response:
    """What is wrong, in words; what the reader asked for wrongly is the reader's, the rest the server's."""
    status = 422 if isinstance(error, ReportError) else 503
    return JSONResponse({"detail": str(error)}, status)


def _static(name: str, media_type: str) -> Any:
    def answer() -> Response:
        return Response((_STATIC / name).read_text(), media_type=media_type)

    return answer


@lru_cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, out of the wheel: nothing comes from another host."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _vega() -> Response:
    return Response(_bundle(), media_type="text/javascript", headers={"Cache-Control": "private, max-age=86400"})


@lru_cache(maxsize=1)
def _choices(_moment: int) -> Mapping[str, list[str]]:
    """What the filters may be set to; asked for once in a while, since every figure on the page needs it."""
    with reading() as store:
        return choices(store.live)


def _filters(
    request: Request, *, region: Values, institution: Values, form_type: Values, first: str = "", last: str = ""
) -> Filters:
    """What the query string asks for: these names, and values that the collections hold."""
    unknown = set(request.query_params) - _ASKED
    if unknown:
        raise HTTPException(
            422, f"there is no filter {sorted(unknown)[0]!r}; the filters are {', '.join(sorted(_ASKED))}"
        )
    asked = {"region": region, "institution": institution, "form_type": form_type}
    if any(asked.values()):
        known = _choices(int(time.monotonic() // _CHOICES_KEPT_FOR))
        for name, values in asked.items():
            if strangers := set(values) - set(known[name]):
                raise HTTPException(422, f"there is no {name.replace('_', ' ')} {sorted(strangers)[0]!r}")
    return Filters(tuple(region), tuple(institution), tuple(form_type), first, last)


Asked = Annotated[Filters, Depends(_filters)]


def _read(name: str, filters: Filters) -> tuple[Report, Rows]:
    report = report_named(name)
    with reading() as store:
        return report, read(store.live, report, filters, Settings.from_environment().timezone)


def _page() -> dict[str, Any]:
    """What the page is made of: the reports, and what their filters may be set to."""
    found = _choices(int(time.monotonic() // _CHOICES_KEPT_FOR))
    public = {"name", "title", "question", "section", "columns", "spec", "collection"}
    return {
        "reports": [report.model_dump(include=public) for report in reports()],
        "choices": found,
        "themes": THEMES,
    }


def _rows(name: str, filters: Asked) -> dict[str, Any]:
    report, found = _read(name, filters)
    return {**asdict(found), "ignored": list(ignored(report.job, filters))}


def _csv(name: str, filters: Asked) -> Response:
    report, found = _read(name, filters)
    headers = {"Content-Disposition": f'attachment; filename="{report.name}.csv"'}
    return Response(_csv_text(report, found), media_type="text/csv; charset=utf-8", headers=headers)


def _csv_text(report: Report, found: Rows) -> str:
    """RFC 4180; a cell that a spreadsheet would run as a formula is quoted as text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    names = [column.name for column in report.columns]
    writer.writerow(names)
    for row in found.rows:
        writer.writerow([_cell(row[name]) for name in names])
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def _freshness() -> dict[str, Any]:
    settings = Settings.from_environment()
    with reading() as store:
        found = freshness(store, settings)
    return {"jobs": [asdict(each) for each in found]}


def _charts() -> Response:
    headers = {"Content-Disposition": 'attachment; filename="meg-bi.charts"'}
    with reading() as store:
        return Response(atlas.dashboard(store.live.name), media_type="application/json", headers=headers)
