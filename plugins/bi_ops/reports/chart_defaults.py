"""Completes a chart's specification from its report's columns: what is alike in every chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bi_ops.reports.definitions import Column

_FORMATS = {"integer": ",", "number": ",.1f"}
_LABEL = "label"
_INSTITUTION_LABEL = {
    "calculate": "datum.institution + ' (' + datum.region + ' ' + datum.institution_id + ')'",
    "as": _LABEL,
}
_LABEL_COLUMN = "institution_id"
"""The label shows it, so tooltips do not."""


def complete_spec(spec: Mapping[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """A Vega-Lite specification from its short form; a complete one is unchanged.

    What the short form gives takes precedence over these defaults:

    - `mark: line` is a line with points; `encoding: {x: month}` draws the column `month`.
    - A channel's type and title are those of its column. The title of a category on the y axis is left out, and its
      values keep the order of the rows.
    - An axis of integers has no fractions.
    - The field `label` of the y axis is the institution with its region and id, unless `transform` computes it.
    - The tooltip has all columns but the institution's id.

    Args:
        spec: The specification without data.
        columns: The columns of the report's rows.

    Raises:
        ValueError: It has no mark or encoding, or names a field that no column or transform has.
    """
    if not isinstance(spec.get("mark"), (str, dict)) or not isinstance(spec.get("encoding"), dict):
        raise ValueError("expected a mark and an encoding")
    by_name = {column.name: column for column in columns}
    given = {name: {"field": value} if isinstance(value, str) else value for name, value in spec["encoding"].items()}
    tooltip = given.pop("tooltip", None) or [_tooltip(column) for column in columns if column.name != _LABEL_COLUMN]
    transform = list(spec.get("transform", ()))
    computed = {step.get("as") for step in transform}
    if given.get("y", {}).get("field") == _LABEL and _LABEL not in computed:
        transform.append(_INSTITUTION_LABEL)
    known = {*by_name, *computed, _LABEL}
    encoding = {name: _complete_channel(name, channel, by_name, known) for name, channel in given.items()}
    completed = {**spec, "mark": _mark(spec["mark"]), "encoding": {**encoding, "tooltip": tooltip}}
    return {**completed, "transform": transform} if transform else completed


def _mark(mark: str | dict[str, Any]) -> dict[str, Any]:
    completed = {"type": mark} if isinstance(mark, str) else mark
    return {"point": True, **completed} if completed.get("type") == "line" else completed


def _complete_channel(
    name: str, channel: dict[str, Any], by_name: Mapping[str, Column], known: set[str]
) -> dict[str, Any]:
    field = channel.get("field")
    if field is None:  # a value or a condition
        return channel
    if field not in known:
        raise ValueError(f"encoding.{name}: no column or transform is named {field!r}")
    defaults = _channel_defaults(name, field, by_name.get(field))
    if "axis" in defaults and "axis" in channel:
        channel = {**channel, "axis": {**defaults["axis"], **channel["axis"]}}
    return {**defaults, **channel}


def _channel_defaults(name: str, field: str, column: Column | None) -> dict[str, Any]:
    in_row_order = {"title": None, "sort": None}
    if column is None:
        return {"type": "nominal", **in_row_order} if field == _LABEL else {}
    if column.type == "text":
        defaults = {"type": "ordinal" if name == "x" else "nominal", "title": column.title}
        return {**defaults, **in_row_order} if name == "y" else defaults
    defaults = {"type": "quantitative", "title": column.title}
    is_count = column.type == "integer" and name in ("x", "y")
    return {**defaults, "axis": {"tickMinStep": 1}} if is_count else defaults


def _tooltip(column: Column) -> dict[str, str]:
    if column.type == "text":
        return {"field": column.name, "title": column.title, "type": "nominal"}
    return {"field": column.name, "title": column.title, "type": "quantitative", "format": _FORMATS[column.type]}
