"""Tests the file for Atlas Charts against the shape of a real export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bi_ops.reports.atlas import build_dashboard
from bi_ops.reports.atlas_tiles import load_tiles
from bi_ops.reports.definitions import load_reports

pytestmark = pytest.mark.fast

SHAPE = json.loads((Path(__file__).parent / "atlas_export_v8.json").read_text())
NUMBER = {**SHAPE["items"]["Donut"], "iconValue": "number"}
"""The real export has no number chart. A donut without its label has the same single channel."""


def json_type(value: Any) -> str:
    kinds = {bool: "bool", str: "str", int: "number", float: "number", list: "list", dict: "object", type(None): "null"}
    return kinds[type(value)]


def test_atlas_file_has_export_shape() -> None:
    """The file has the shape of a real export of Atlas Charts."""
    export = json.loads(build_dashboard("bi"))
    assert {name: json_type(value) for name, value in export.items()} == SHAPE["top"]
    assert export["exportVersion"] == SHAPE["exportVersion"]
    [board] = export["dashboards"].values()
    assert {name: json_type(value) for name, value in board.items()} == SHAPE["dashboard"]
    assert all(
        {name: json_type(value) for name, value in place.items()} == SHAPE["layout"] for place in board["layout"]
    )
    assert {place["i"] for place in board["layout"]} == set(export["items"])
    for collection in export["dataSources"].values():
        assert {name: json_type(value) for name, value in collection.items()} == SHAPE["dataSource"]
    for item in export["items"].values():
        shape = SHAPE["items"].get(item["chartType"], NUMBER)
        assert set(item) == set(shape)
        assert item["iconValue"] == shape["iconValue"]
        for name, value in item.items():
            assert (
                name == "iconValue"
                or json_type(value) == shape[name]
                or (name == "query" and json_type(value) == "str")
            ), name
        assert sorted(item["customisations"]) == SHAPE["customisations"]
        for name, channel in item["channels"].items():
            known = SHAPE["channels"].get(item["chartType"], SHAPE["channels"]["Donut"]).get(name)
            known = known or SHAPE["channels"]["Stacked Column"][name]
            assert {key: json_type(value) for key, value in channel.items()}.items() <= known.items(), (
                item["title"],
                name,
            )
        assert item["dataSourceId"] in export["dataSources"]
    assert len(build_dashboard("bi")) < 16_000_000


def test_atlas_layout_has_tiles_first() -> None:
    """The first row is the tiles, as wide as the grid; each chart is below, and none overlaps another."""
    export = json.loads(build_dashboard("bi"))
    [board] = export["dashboards"].values()
    shown = [(export["items"][place["i"]], place) for place in board["layout"]]
    tiles = [place for item, place in shown if item["chartType"] == "Number"]
    assert [item["title"] for item, _ in shown[: len(tiles)]] == [tile.title for tile in load_tiles()]
    assert [item["title"] for item, _ in shown[len(tiles) :]] == [report.title for report in load_reports()]
    assert (sum(place["w"] for place in tiles), {place["y"] for place in tiles}) == (8, {0})
    cells = [
        (x, y)
        for place in board["layout"]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(8))


def test_atlas_tile_is_one_aggregated_value() -> None:
    """A number chart has one channel, which is aggregated."""
    export = json.loads(build_dashboard("bi"))
    numbers = [item for item in export["items"].values() if item["chartType"] == "Number"]
    assert len(numbers) == len(load_tiles())
    for item, tile in zip(numbers, load_tiles(), strict=True):
        [(name, channel)] = item["channels"].items()
        assert (name, channel["channelType"], channel["field"]) == ("value", "aggregation", tile.value)
        assert export["dataSources"][item["dataSourceId"]]["collection"] == tile.collection
        assert json.loads(item["query"] or "[]") == tile.query
