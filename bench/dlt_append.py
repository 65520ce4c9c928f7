"""Appends documents to a MongoDB collection with dlt, through a custom destination, as dlt has none for MongoDB."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from pymongo.collection import Collection

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["PROVIDERS__ENABLE_AIRFLOW_SECRETS"] = "false"  # or dlt looks up each of its settings in Airflow

import dlt

BATCH = 10_000
"""The number of documents in each insert."""


def append_documents(batches: Callable[[], Iterator[list[dict[str, Any]]]], collection: Collection[Any]) -> None:
    """Run a pipeline whose resource yields these batches of documents and whose destination is this collection."""
    with tempfile.TemporaryDirectory() as folder:

        @dlt.destination(batch_size=BATCH, name="mongo", naming_convention="direct", skip_dlt_columns_and_tables=True)
        def insert(items: Any, _table: Any) -> None:
            collection.insert_many(items)

        pipeline = dlt.pipeline("bench", destination=insert, pipelines_dir=folder)
        pipeline.run(dlt.resource(batches, name=collection.name))
