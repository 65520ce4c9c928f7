"""The indexes that make the reports fast, derived from their pipelines; the database's owner creates them."""

from __future__ import annotations

import json
from typing import Any

from bi_ops.reports.definitions import Report, load_reports
from bi_ops.reports.filters import filter_fields

_WORTH_IT = 2
"""Fields that an index should distinguish; one alone, such as whether an institution is active, rejects too little."""


def recommended_indexes() -> str:
    """The indexes by collection, as JSON: what include/mongo/indexes.json holds."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for report in load_reports():
        keys = _keys(report)
        if keys:
            name = "_".join(keys)
            found.setdefault(report.collection, {})[name] = {"name": name, "key": dict.fromkeys(keys, 1)}
    listed = {collection: list(indexes.values()) for collection, indexes in found.items()}
    lines = (f"  {json.dumps(collection)}: {json.dumps(indexes)}" for collection, indexes in listed.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _keys(report: Report) -> list[str]:
    """What its documents are found by: their period and region, or else what its pipeline first matches them by."""
    fields = filter_fields(report.job)
    if "period" in fields:
        return [fields["period"], fields["region"]]  # the range of periods leads: the page always asks for one
    first = report.pipeline[0].get("$match", {})
    equal = [name for name, value in first.items() if not isinstance(value, dict) and not name.startswith("$")]
    return equal if len(equal) >= _WORTH_IT else []
