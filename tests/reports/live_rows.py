"""Inserts documents into live collections with `_id`s as loads write them: after the region, and the period if any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import ObjectId
from pymongo.collection import Collection


def insert_live(collection: Collection[Any], *rows: Mapping[str, Any]) -> None:
    """Insert the rows; the ends of their `_id`s are new each time."""
    collection.insert_many([{"_id": _id(row), **row} for row in rows])


def _id(row: Mapping[str, Any]) -> str:
    return ":".join([row["region"], *([row["period"]] if row.get("period") else []), str(ObjectId())])
