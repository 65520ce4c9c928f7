"""Builds the reports' dashboard for MongoDB Atlas Charts, as a file of its export format, version 8."""

from __future__ import annotations

import json
from typing import Any

from bi_ops.catalog.jobs import FieldType, Job
from bi_ops.reports.atlas_tiles import Tile, load_tiles
from bi_ops.reports.definitions import AtlasChart, Report, Stages, load_reports

_ICONS = {
    "Number": "number",
    "Line": "line-discrete",
    "Stacked Column": "column-stacked",
    "Grouped Bar": "bar-grouped",
    "Donut": "donut",
}
_CHANNELS = {
    "Line": ("x", "y", "color"),
    "Stacked Column": ("x", "y", "color"),
    "Grouped Bar": ("y", "x", "color"),
    "Donut": ("label", "value", ""),
}
"""The channels of a chart type's category, value and series."""
_TYPES = {
    FieldType.INTEGER: "Number",
    FieldType.NUMBER: "Number",
    FieldType.TEXT: "String",
    FieldType.TEXT_ARRAY: "String",
    FieldType.BOOLEAN: "Boolean",
    FieldType.TIMESTAMP: "Date",
}
_LATEST: Stages = [
    {"$setWindowFields": {"output": {"latest_period": {"$max": "$period"}}}},
    {"$match": {"$expr": {"$eq": ["$period", "$latest_period"]}}},
]
_AXES = {"Line": ("x", "y"), "Stacked Column": ("x", "y"), "Grouped Bar": ("x",)}
_GRID_COLUMNS, _COLUMNS, _WIDTH, _HEIGHT, _TILE_HEIGHT = 8, 2, 4, 2, 1
"""The layout: a row of tiles, then two charts in a row."""


def build_dashboard(database: str) -> str:
    """The dashboard, as JSON to be imported (at most 16 MB).

    Args:
        database: The live database's name.
    """
    tiles, reports = load_tiles(), load_reports()
    collections = dict.fromkeys([tile.collection for tile in tiles] + [report.collection for report in reports])
    sources = {name: f"data-source-{number}" for number, name in enumerate(collections, start=1)}
    shown_items = [
        *(_tile_item(tile, sources[tile.collection]) for tile in tiles),
        *(_chart_item(report, sources[report.collection]) for report in reports),
    ]
    items = {f"item-{number}": item for number, item in enumerate(shown_items, start=1)}
    places = [*_tile_places(len(tiles)), *_chart_places(len(reports))]
    layout = [{**place, "i": name} for name, place in zip(items, places, strict=True)]
    return json.dumps(
        {
            "exportVersion": 8,
            "dashboards": {
                "dashboard-1": {
                    "title": "MEG BI",
                    "layout": layout,
                    "description": "How clients use MEG.",
                    "embedding": {
                        "anonymousAuthEnabled": False,
                        "anonymousAuthWhitelist": [],
                        "allowAllFieldsAnonymousAuth": False,
                    },
                    "filters": [],
                }
            },
            "items": items,
            "dataSources": {
                source: {
                    "alias": name,
                    "collection": name,
                    "database": database,
                    "deployment": "Cluster0",
                    "sourceType": "cluster",
                }
                for name, source in sources.items()
            },
            "queries": {},
        },
        indent=2,
    )


def _tile_places(count: int) -> list[dict[str, int]]:
    """One row; the first tiles are wider where the grid cannot be divided equally."""
    width, wider = divmod(_GRID_COLUMNS, count)
    return [
        {"w": width + (number < wider), "h": _TILE_HEIGHT, "x": number * width + min(number, wider), "y": 0}
        for number in range(count)
    ]


def _chart_places(count: int) -> list[dict[str, int]]:
    return [
        {
            "w": _WIDTH,
            "h": _HEIGHT,
            "x": number % _COLUMNS * _WIDTH,
            "y": number // _COLUMNS * _HEIGHT + _TILE_HEIGHT,
        }
        for number in range(count)
    ]


def _tile_item(tile: Tile, source: str) -> dict[str, Any]:
    channels = {"value": _aggregation(tile.job, tile.value, tile.aggregate)}
    return _item(tile, source, "Number", channels, tile.query)


def _chart_item(report: Report, source: str) -> dict[str, Any]:
    chart = report.atlas
    stages = [*_LATEST, *chart.query] if chart.latest else chart.query
    return _item(report, source, chart.type, _channels(report.job, chart), stages, note=chart.note)


def _item(
    shown: Tile | Report, source: str, chart_type: str, channels: dict[str, Any], stages: Stages, *, note: str = ""
) -> dict[str, Any]:
    return {
        "title": shown.title,
        "description": f"{shown.question} {note}".strip(),
        "dashboardId": "dashboard-1",
        "dataSourceId": source,
        "iconValue": _ICONS[chart_type],
        "itemType": "chart",
        "filters": [],
        "missedFields": [],
        "lookupFields": [],
        "convertedFields": [],
        "calculatedFields": [],
        "channels": channels,
        "reductions": {},
        "customisations": {
            "options": {},
            "axes": {name: {} for name in _AXES.get(chart_type, ())},
            "channels": {name: {} for name in channels},
            "conditionalFormatting": [],
        },
        "chartType": chart_type,
        "meta": {},
        "sample": False,
        "query": json.dumps(stages) if stages else None,
        "queryId": None,
        "interactiveFiltering": "highlight",
        "embedding": {},
    }


def _channels(job: Job, chart: AtlasChart) -> dict[str, Any]:
    category, value, series = _CHANNELS[chart.type]
    channels: dict[str, Any] = {
        value: _aggregation(job, chart.value, chart.aggregate),
        category: _category(job, chart.category, category),
    }
    if chart.series and series:
        channels[series] = _category(job, chart.series, series)
    return channels


def _aggregation(job: Job, field: str, aggregate: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "inferredType": _get_type(job, field, "Number"),
        "transformedType": "Number",
        "channelType": "aggregation",
        "aggregate": aggregate,
    }


def _category(job: Job, field: str, channel: str) -> dict[str, Any]:
    field_type = _get_type(job, field, "String")
    settings: dict[str, Any] = {
        "field": field,
        "type": "nominal",
        "inferredType": field_type,
        "channelType": "category",
        "isBinning": False,
    }
    if channel in ("label", "color"):
        settings["transformedType"] = field_type
    if channel in ("label", "y"):
        settings["sort"] = {"axis": "Aggregated Value", "order": "descending"}
    if channel == "label":
        settings["allOthers"] = False
    return settings


def _get_type(job: Job, name: str, default: str) -> str:
    """The type of a field in Charts; `default` for a field that the chart's own query adds."""
    return next((_TYPES[field.type] for field in job.fields if field.name == name), default)
