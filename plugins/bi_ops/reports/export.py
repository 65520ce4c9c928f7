"""The dashboard as files: one HTML page that needs nothing else, and a PNG of each report, for email or a wiki."""

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
from bi_ops.reports.query import ReportResult, run_report
from bi_ops.reports.theme import THEMES
from bi_ops.settings import Settings

_WIDTH, _HEIGHT = 460, 260
_STATIC = Path(__file__).parent / "static"


def export_dashboard(store: Store, settings: Settings, folder: Path) -> Path:
    """Write the dashboard into a folder, and return the path of its page.

    Args:
        store: The databases.
        settings: The settings in force.
        folder: Where to write; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("*.png"):
        earlier.unlink()
    shown = []
    for report in load_reports():
        found = run_report(store.live, report, Filters())
        spec = vega_lite_spec(report, found)
        if found.rows:
            (folder / f"{report.name}.png").write_bytes(
                vl_convert.vegalite_to_png(spec | {"background": "white"}, scale=2)
            )
        shown.append({"report": report, "found": found, "svg": vl_convert.vegalite_to_svg(spec) if found.rows else ""})
    page = folder / "index.html"
    page.write_text(_page(shown, store, settings))
    return page


def vega_lite_spec(report: Report, found: ReportResult) -> dict[str, Any]:
    """A report with its rows, whole, as Vega-Lite draws it."""
    size = {"width": _WIDTH, "height": _HEIGHT, "autosize": {"type": "fit", "contains": "padding"}}
    return {**size, **report.spec, "config": THEMES["light"], "data": {"values": found.rows}}


def _page(shown: list[dict[str, Any]], store: Store, settings: Settings) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_STATIC), autoescape=True, undefined=jinja2.StrictUndefined
    )
    published = overview(store, settings)
    return environment.get_template("snapshot.html").render(
        shown=shown,
        jobs=published.jobs,
        problems=published.problems,
        css=(_STATIC / "page.css").read_text(),
        made_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
