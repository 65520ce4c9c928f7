"""Completes a report's Vega-Lite specification for its rows: time axis, colours, labels and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from bi_ops.reports.coverage import Coverage
from bi_ops.reports.definitions import Report

COMPLETE = "no"
"""The value of a chart row's `partial` where every selected region has the period."""
_LINE = 26
_LABEL_STEP, _BAR_STEP = 30, 24
_MAX_BAR_WIDTH = 48
_LEGEND_WIDTH, _LEGEND_CHARACTER, _LEGEND_SYMBOL = 330, 6, 28
_BREAK = f"lastindexof(slice(datum.label, 0, {_LINE + 1}), ' ')"
_HEAD = f"({_BREAK} > 8 ? {_BREAK} : {_LINE})"
_TAIL = f"trim(slice(datum.label, {_HEAD}))"
_TWO_LINES = (
    f"length(datum.label) <= {_LINE} ? datum.label : [slice(datum.label, 0, {_HEAD}), "
    f"length({_TAIL}) <= {_LINE + 2} ? {_TAIL} : '…' + slice({_TAIL}, -{_LINE + 1})]"
)
"""A long name on two lines, and cut in its middle: names that begin or end alike still differ."""


def chart_rows(report: Report, rows: Sequence[Mapping[str, Any]], coverage: Coverage) -> list[dict[str, Any]]:
    """The rows to draw: one for each period of the axis and each series, with `partial` naming the regions without it.

    A period that was loaded and has no row counts as zero where the value is a count. One that was not loaded has no
    value, so that a line is interrupted.
    """
    time, series = time_field(report), _field(report, "color")
    if not time:
        return [dict(row) for row in rows]
    value = _field(report, "y")
    is_count = next(column.type for column in report.columns if column.name == value) == "integer"
    by_key = {(row[time], row.get(series)): row for row in rows}
    names = {row.get(series) for row in rows} | (set(coverage.regions) if rows and series == "region" else set())
    completed = []
    for period in chart_axis(report, rows, coverage):
        partial = coverage.partial.get(period)
        for name in sorted(names, key=str):
            loaded = coverage.has(period, name if series == "region" else None)
            row = by_key.get((period, name)) or {time: period, series: name, value: 0 if loaded and is_count else None}
            completed.append({**row, "partial": f"without {', '.join(partial)}" if partial else COMPLETE})
    return completed


def chart_axis(report: Report, rows: Sequence[Mapping[str, Any]], coverage: Coverage) -> list[str]:
    """The periods of the time axis: from the first that has a value to the last loaded one."""
    time = time_field(report)
    first = min((row[time] for row in rows), default="")
    return sorted({name for name in coverage.axis if name >= first} | {row[time] for row in rows})


def time_field(report: Report) -> str:
    """The column of the chart's time axis; empty if it has none."""
    field = _field(report, "x")
    return field if field in ("month", "quarter") else ""


def chart_spec(
    report: Report, rows: Sequence[Mapping[str, Any]], coverage: Coverage, options: Mapping[str, list[str]]
) -> dict[str, Any]:
    """The report's specification, completed; without its data.

    Args:
        report: The report.
        rows: Its rows.
        coverage: The periods that are loaded.
        options: All regions and form types: a value keeps its colour whatever is selected.
    """
    spec = deepcopy(report.spec)
    encoding = spec["encoding"]
    if time_field(report):
        _complete_time_axis(spec, chart_axis(report, rows, coverage), coverage)
    elif encoding["y"]["type"] == "nominal":
        axis = encoding["y"].setdefault("axis", {})
        axis |= {"labelLimit": 0, "labelExpr": _TWO_LINES}
        spec["height"] = {"step": _LABEL_STEP if encoding["y"]["field"] == "label" else _BAR_STEP}
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    if (field := _field(report, "color")) and rows:
        _complete_colours(encoding["color"], {row[field] for row in rows}, list(options.get(field, [])))
    return spec


def partial_label(partial: Sequence[str]) -> str:
    """Vega's expression for an axis of periods, which marks those that a region lacks with a star."""
    return f"indexof({[*partial]}, datum.label) < 0 ? datum.label : datum.label + ' *'"


def _complete_time_axis(spec: dict[str, Any], axis: list[str], coverage: Coverage) -> None:
    encoding = spec["encoding"]
    partial = [name for name in axis if name in coverage.partial]
    encoding["x"]["scale"] = {"domain": axis}
    encoding["x"]["axis"] = {
        "labelAngle": 0,
        "labelOverlap": True,
        "labelExpr": partial_label(partial),
    }
    is_bar = spec["mark"]["type"] == "bar"
    if is_bar:
        spec["mark"] = {**spec["mark"], "width": {"expr": f"min({_MAX_BAR_WIDTH}, 0.9 * bandwidth('x'))"}}
    if not partial:
        return
    encoding["tooltip"].append({"field": "partial", "title": "Partial", "type": "nominal"})
    is_partial = f"datum.partial !== '{COMPLETE}'"
    if is_bar:
        encoding["opacity"] = {"condition": {"test": is_partial, "value": 0.45}, "value": 1}
    else:
        shape = {"condition": {"test": is_partial, "value": "cross"}, "value": "circle"}
        points = {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": {"shape": shape}}
        spec["layer"] = [{"mark": {**spec.pop("mark"), "point": False}}, points]


def _complete_colours(color: dict[str, Any], shown: set[str], known: list[str]) -> None:
    """Give each known value its colour, and list in the legend what is drawn, in as many columns as fit."""
    scale = color.setdefault("scale", {"domain": known or sorted(shown)})
    scale["domain"] += sorted(shown - set(scale["domain"]))
    longest = max(map(len, shown))
    columns = max(1, _LEGEND_WIDTH // (_LEGEND_CHARACTER * longest + _LEGEND_SYMBOL))
    color["legend"] = {"values": [name for name in scale["domain"] if name in shown], "columns": columns}


def _field(report: Report, channel: str) -> str:
    field: str = report.spec["encoding"].get(channel, {}).get("field", "")
    return field
