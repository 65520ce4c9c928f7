"""Builds the reports' dashboard for MongoDB Atlas Charts, as a file of its export format, version 8."""

from __future__ import annotations

import json
from typing import Any

from bi_ops.catalog.jobs import FieldType, Job
from bi_ops.reports.definitions import AtlasChart, Report, load_reports

_ICONS = {
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
_LATEST = [
    {"$setWindowFields": {"output": {"latest_period": {"$max": "$period"}}}},
    {"$match": {"$expr": {"$eq": ["$period", "$latest_period"]}}},
]
_AXES = {"Line": ("x", "y"), "Stacked Column": ("x", "y"), "Grouped Bar": ("x",), "Donut": ()}
_COLUMNS, _WIDTH, _HEIGHT = 2, 4, 2
"""The layout: two charts in a row of eight grid columns."""


def build_dashboard(database: str) -> str:
    """The dashboard, as JSON to be imported (at most 16 MB).

    Args:
        database: The live database's name.
    """
    reports = load_reports()
    sources = {name: f"data-source-{number}" for number, name in enumerate(_collections(reports), start=1)}
    items = {
        f"item-{number}": _item(report, sources[report.collection]) for number, report in enumerate(reports, start=1)
    }
    layout = [
        {
            "w": _WIDTH,
            "h": _HEIGHT,
            "x": number % _COLUMNS * _WIDTH,
            "y": number // _COLUMNS * _HEIGHT,
            "i": f"item-{number + 1}",
        }
        for number in range(len(reports))
    ]
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


def _collections(reports: tuple[Report, ...]) -> list[str]:
    return list(dict.fromkeys(report.collection for report in reports))


def _item(report: Report, source: str) -> dict[str, Any]:
    chart = report.atlas
    channels = _channels(report.job, chart)
    stages = [*(_LATEST if chart.latest else []), *chart.query]
    return {
        "title": report.title,
        "description": f"{report.question} {chart.note}".strip(),
        "dashboardId": "dashboard-1",
        "dataSourceId": source,
        "iconValue": _ICONS[chart.type],
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
            "axes": {name: {} for name in _AXES[chart.type]},
            "channels": {name: {} for name in channels},
            "conditionalFormatting": [],
        },
        "chartType": chart.type,
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
        value: {
            "field": chart.value,
            "type": "quantitative",
            "inferredType": _get_type(job, chart.value, "Number"),
            "transformedType": "Number",
            "channelType": "aggregation",
            "aggregate": chart.aggregate,
        },
        category: _category(job, chart.category, category),
    }
    if chart.series and series:
        channels[series] = _category(job, chart.series, series)
    return channels


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
