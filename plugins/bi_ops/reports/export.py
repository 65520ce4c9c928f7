"""Exports the dashboard as one self-contained HTML page and a PNG of each report, for email or a wiki."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from bi_ops.mongo.store import Store
from bi_ops.reports.chart_spec import chart_rows, chart_spec
from bi_ops.reports.definitions import Report, load_reports
from bi_ops.reports.filters import Filters
from bi_ops.reports.freshness import overview
from bi_ops.reports.query_execution import execute
from bi_ops.reports.report_queries import ReportResult, filter_option_steps, run_report
from bi_ops.reports.theme import THEMES
from bi_ops.settings import Settings

_WIDTH, _HEIGHT = 460, 260
_IMAGE_WIDTH = 720
_TITLE_HEIGHT = 90
_FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
_PADDING = {"left": 30, "right": 10, "top": 5, "bottom": 5}
"""The SVG is laid out here and drawn by the reader's browser: fonts of one metric, and room for one that is wider."""
_STATIC = Path(__file__).parent / "static"


def export_dashboard(store: Store, settings: Settings, folder: Path) -> Path:
    """Write the dashboard into a folder, and return the path of its page.

    Args:
        store: The databases.
        settings: The settings in force.
        folder: The folder; created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("*.png"):
        earlier.unlink()
    created_at = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    panels = []
    options = execute(store.live, filter_option_steps())
    for report in load_reports():
        result = run_report(store.live, report, Filters(), settings.regions)
        spec, note = vega_lite_spec(report, result, options), _note(result)
        if result.rows:
            subtitle = [report.question, note or "All periods", created_at]
            title = {"text": report.title, "subtitle": subtitle, "anchor": "start", "frame": "bounds", "offset": 12}
            image = {**spec, "background": "white", "title": title, "width": _IMAGE_WIDTH}
            if image["height"] == _HEIGHT:
                image["height"] += _TITLE_HEIGHT
            (folder / f"{report.name}.png").write_bytes(vl_convert.vegalite_to_png(image, scale=2))
        svg = vl_convert.vegalite_to_svg(spec) if result.rows else ""
        panels.append({"report": report, "result": result, "svg": svg, "note": note})
    page = folder / "index.html"
    page.write_text(_page(panels, store, settings, created_at))
    return page


def vega_lite_spec(report: Report, result: ReportResult, options: Mapping[str, list[str]]) -> dict[str, Any]:
    """A report's complete Vega-Lite specification, with its rows."""
    size = {"width": _WIDTH, "height": _HEIGHT, "autosize": {"type": "fit", "contains": "padding"}}
    spec = chart_spec(report, result.rows, result.coverage, options)
    rows = chart_rows(report, result.rows, result.coverage)
    config = {**THEMES["light"], "font": _FONT}
    return {**size, **spec, "config": config, "padding": _PADDING, "data": {"values": rows}}


def _note(result: ReportResult) -> str:
    """The period shown, and the periods that some of the regions lack."""
    partial = result.coverage.partial
    shown = {result.period: partial.get(result.period)} if result.period else partial
    texts = [f"{period} without {', '.join(regions)}" for period, regions in shown.items() if regions]
    period = f"Period: {result.period}{' *' if texts else ''}." if result.period else ""
    return f"{period} * Partial: {'; '.join(texts)}.".strip() if texts else period


def _instant(text: str) -> str:
    """An instant in ISO 8601, in UTC to the minute; a period is unchanged."""
    if "T" not in text:
        return text
    return datetime.fromisoformat(text).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M")


def _page(panels: list[dict[str, Any]], store: Store, settings: Settings, created_at: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_STATIC), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["instant"] = _instant
    published = overview(store, settings)
    return environment.get_template("export.html").render(
        panels=panels,
        jobs=published.jobs,
        problems=published.problems,
        loads=published.loads,
        css=(_STATIC / "page.css").read_text(),
        created_at=created_at,
    )
