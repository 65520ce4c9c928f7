"""Renders a digest: as HTML that mail clients keep, as a short text for chat services, and as PNGs of its charts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from bi_ops.mongo.store import Store
from bi_ops.reports.chart_spec import partial_label
from bi_ops.reports.clients import ClientRow
from bi_ops.reports.digest import Digest, load_digest
from bi_ops.reports.digest_state import requested_month
from bi_ops.reports.overview import Tile
from bi_ops.reports.theme import THEMES
from bi_ops.settings import Settings

MAX_TEXT = 1_900
"""The most characters of the text: Discord, for one, refuses more than 2,000 with the title."""

_STATIC = Path(__file__).parent / "static"
_FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
_WIDTH, _HEIGHT, _BAR_STEP = 560, 200, 24
_MAX_BAR_WIDTH = 36
_SCALE = 2
_PARTIAL_OPACITY = 0.45
_CHARTED_TILES = ("submissions", "sessions")
_TEXT_CLIENTS = 3
_MAX_NAME = 60


def digest_html(digest: Digest) -> str:
    """The digest as one HTML page: tables with inline styles, without scripts and images."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_STATIC),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "value": _tile_value,
        "change": _change,
        "quarter_change": _quarter_change,
        "shorten": _shorten,
    }
    return environment.get_template("digest.html").render(digest=digest)


def digest_text(digest: Digest) -> str:
    """The digest as a text of at most `MAX_TEXT` characters, without its title: as many whole lines as fit."""
    end = [line for line in (digest.freshness, digest.page_url) if line]
    room = MAX_TEXT - sum(len(line) + 1 for line in end)
    lines = []
    for line in _lines(digest):
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    return "\n".join([*lines, *end])


def digest_images(digest: Digest) -> dict[str, bytes]:
    """The digest's charts as PNGs, by file name; a chart without a value is left out."""
    charts = {tile.name: _months_chart(tile) for tile in digest.figures.tiles if tile.name in _CHARTED_TILES}
    charts["clients"] = _clients_chart(digest)
    return {f"{name}.png": vl_convert.vegalite_to_png(chart, scale=_SCALE) for name, chart in charts.items() if chart}


def export_digest(store: Store, settings: Settings, folder: Path) -> Path:
    """Write the digest of the newest complete month into a folder, and return the path of its page.

    An earlier page is removed.

    Args:
        store: The databases; only the live one is read.
        settings: The settings in force.
        folder: The folder, which exists.

    Raises:
        NoDigestError: There is no month that every region has published.
    """
    now, page = datetime.now(timezone.utc), folder / "digest.html"
    page.unlink(missing_ok=True)
    digest = load_digest(store, settings, requested_month(store, settings, None, now, {}), now)
    page.write_text(digest_html(digest))
    for name, image in digest_images(digest).items():
        (folder / f"digest-{name}").write_bytes(image)
    return page


def _lines(digest: Digest) -> Iterator[str]:
    figures = digest.figures
    if digest.month.lacking:
        yield f"Not published yet, and not in these figures: {', '.join(digest.month.lacking)}."
    for tile in figures.tiles:
        changes = ((_change(tile.change_month), "on last month"), (_change(tile.change_year), "on last year"))
        notes = [f"{change} {base}" for change, base in changes if change] + [tile.note] * bool(tile.note)
        total = "" if tile.total is None else f" of {_number(tile.total)}"
        yield f"{tile.title}: {_tile_value(tile)}{total}" + (f" ({', '.join(notes)})" if notes else "")
    quarter = figures.quarter or "the newest quarter"
    for title, clients in (
        ("Clients that need attention", figures.attention),
        (f"Growing in {quarter}", figures.growing),
        (f"Fading in {quarter}", figures.fading),
    ):
        if clients:
            yield f"{title}:"
        for client in clients[:_TEXT_CLIENTS]:
            submissions = f"{_number(client.quarter_submissions)} submissions {_quarter_change(client)}".rstrip()
            details = "; ".join(client.attention.reasons) if clients is figures.attention else submissions
            yield f"- {_shorten(client.name)} {client.region}: {details}"


def _months_chart(tile: Tile) -> dict[str, Any] | None:
    """Bars of the last months; paler and with a star where a region lacks the month, none where it is not loaded."""
    if all(point["value"] is None for point in tile.series):
        return None
    rows = [{**point, "partial": bool(point["partial"])} for point in tile.series]
    partial = [row["period"] for row in rows if row["partial"]]
    axis = {"labelAngle": 0, "labelOverlap": True, "labelExpr": partial_label(partial)}
    encoding = {
        "x": {"field": "period", "type": "ordinal", "title": None, "axis": axis},
        "y": {"field": "value", "type": "quantitative", "title": None},
        "opacity": {"condition": {"test": "datum.partial", "value": _PARTIAL_OPACITY}, "value": 1},
    }
    subtitle = "* without some of the regions" if partial else ""
    mark = {"type": "bar", "width": {"expr": f"min({_MAX_BAR_WIDTH}, 0.9 * bandwidth('x'))"}}
    return _chart(tile.title, subtitle, rows, {"mark": mark, "encoding": encoding, "height": _HEIGHT})


def _clients_chart(digest: Digest) -> dict[str, Any] | None:
    """Bars of the submissions that the growing clients gained, and the fading ones lost, on the quarter before."""
    clients = [*digest.figures.growing, *reversed(digest.figures.fading)]
    if not clients:
        return None
    labels = [f"{_shorten(client.name)}, {client.region}" for client in clients]
    rows = [{"order": number, "value": client.change_quarter_count} for number, client in enumerate(clients)]
    _, fading, growing = THEMES["light"]["range"]["category"][:3]
    axis = {"labelExpr": f"{json.dumps(labels)}[datum.value]", "labelLimit": 0}  # two clients may have one name
    encoding = {
        "x": {"field": "value", "type": "quantitative", "title": None},
        "y": {"field": "order", "type": "ordinal", "title": None, "axis": axis},
        "color": {"condition": {"test": "datum.value < 0", "value": fading}, "value": growing},
    }
    title = f"Submissions in {digest.figures.quarter or 'the newest quarter'}, change on the quarter before"
    return _chart(title, "", rows, {"mark": "bar", "encoding": encoding, "height": {"step": _BAR_STEP}})


def _chart(title: str, subtitle: str, rows: list[dict[str, Any]], spec: dict[str, Any]) -> dict[str, Any]:
    return {
        **spec,
        "width": _WIDTH,
        "background": "white",
        "padding": 12,
        "title": {"text": title, "subtitle": subtitle, "anchor": "start", "frame": "bounds", "offset": 8},
        "config": {**THEMES["light"], "background": "white", "font": _FONT},
        "data": {"values": rows},
    }


def _number(value: float | None, unit: str = "") -> str:
    """A number with thousands separators and at most one decimal; a dash for an unknown one."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,.1f}".removesuffix(".0") + unit


def _tile_value(tile: Tile) -> str:
    return _number(tile.value, " %" if tile.unit == "percent" else "")


def _change(change: Mapping[str, float] | None) -> str:
    """A change with its sign, in percent or in points; empty for an unknown one."""
    if not change:
        return ""
    unit = "points" if "points" in change else "percent"
    return _signed(change[unit], " points" if unit == "points" else " %")


def _quarter_change(client: ClientRow) -> str:
    """A client's change on the quarter before, in submissions and in percent."""
    counts = [] if client.change_quarter_count is None else [_signed(client.change_quarter_count)]
    shares = [] if client.change_quarter is None else [_signed(client.change_quarter, " %")]
    return ", ".join(counts + shares)


def _signed(value: float, unit: str = "") -> str:
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}{_number(abs(value), unit)}"


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"
