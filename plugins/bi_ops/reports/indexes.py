"""Derives the recommended indexes from the reports' pipelines; the database's owner creates them."""

from __future__ import annotations

import json
from typing import Any

from bi_ops.reports.definitions import Report, load_reports
from bi_ops.reports.filters import filter_fields

_MIN_FIELDS = 2
"""An index on one field alone, such as whether an institution is active, excludes too few documents."""


def recommended_indexes() -> str:
    """The indexes by collection, as JSON: what include/mongo/indexes.json holds."""
    by_collection: dict[str, dict[str, dict[str, Any]]] = {}
    for report in load_reports():
        keys = _keys(report)
        if keys:
            name = "_".join(keys)
            by_collection.setdefault(report.collection, {})[name] = {"name": name, "key": dict.fromkeys(keys, 1)}
    lines = (
        f"  {json.dumps(collection)}: {json.dumps([*indexes.values()])}"
        for collection, indexes in by_collection.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _keys(report: Report) -> list[str]:
    """The fields that select its documents: period and region, or else the equality filters of its first stage."""
    fields = filter_fields(report.job)
    if "period" in fields:
        return [fields["period"], fields["region"]]  # period first: the page always selects a range
    first: Any = report.pipeline[0].get("$match", {})
    names = [name for name, value in first.items() if not isinstance(value, dict) and not name.startswith("$")]
    return names if len(names) >= _MIN_FIELDS else []
