"""Exports the dashboard as one self-contained HTML page and a PNG of each report, for email or a wiki."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from bi_ops.mongo.store import Store
from bi_ops.reports.definitions import Report, load_reports
from bi_ops.reports.filters import Filters
from bi_ops.reports.freshness import overview
from bi_ops.reports.report_queries import ReportResult, run_report
from bi_ops.reports.theme import THEMES
from bi_ops.settings import Settings

_WIDTH, _HEIGHT = 460, 260
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
    panels = []
    for report in load_reports():
        result = run_report(store.live, report, Filters())
        spec = vega_lite_spec(report, result)
        if result.rows:
            (folder / f"{report.name}.png").write_bytes(
                vl_convert.vegalite_to_png(spec | {"background": "white"}, scale=2)
            )
        svg = vl_convert.vegalite_to_svg(spec) if result.rows else ""
        panels.append({"report": report, "result": result, "svg": svg})
    page = folder / "index.html"
    page.write_text(_page(panels, store, settings))
    return page


def vega_lite_spec(report: Report, result: ReportResult) -> dict[str, Any]:
    """A report's complete Vega-Lite specification, with its rows."""
    size = {"width": _WIDTH, "height": _HEIGHT, "autosize": {"type": "fit", "contains": "padding"}}
    return {**size, **report.spec, "config": THEMES["light"], "data": {"values": result.rows}}


def _page(panels: list[dict[str, Any]], store: Store, settings: Settings) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_STATIC), autoescape=True, undefined=jinja2.StrictUndefined
    )
    published = overview(store, settings)
    return environment.get_template("export.html").render(
        panels=panels,
        jobs=published.jobs,
        problems=published.problems,
        loads=published.loads,
        css=(_STATIC / "page.css").read_text(),
        created_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
