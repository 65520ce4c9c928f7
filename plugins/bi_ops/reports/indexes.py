"""Derives the recommended indexes from what the reports page selects and sums; the database's owner creates them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bi_ops.catalog.jobs import JOBS, Job, LoadMode
from bi_ops.reports.filters import filter_fields

_PERIOD = ("period", "region")
"""The period first: the page selects a range of periods, or the newest one."""
_CLIENT = ("region", "institution_id")


def recommended_indexes() -> str:
    """The indexes by collection, as JSON: what include/mongo/indexes.json holds."""
    collections = (
        f"  {json.dumps(job.name)}: [\n    " + ",\n    ".join(map(json.dumps, indexes)) + "\n  ]"
        for job in JOBS
        if (indexes := _indexes(job))
    )
    return "{\n" + ",\n".join(collections) + "\n}\n"


def _indexes(job: Job) -> list[dict[str, Any]]:
    return [{"name": "_".join(keys), "key": dict.fromkeys(keys, 1)} for keys in _keys(job)]


def _keys(job: Job) -> Sequence[tuple[str, ...]]:
    """The keys of a collection's indexes; one without periods is so small that reading all of it takes a few ms."""
    if "period" not in filter_fields(job):
        return ()
    if job.mode is LoadMode.REPLACE_PERIOD:
        # It grows with every month. The sums of regions and clients are read from the index alone.
        return (*_PERIOD, "institution_id", job.measure), _CLIENT
    return (_PERIOD,)
