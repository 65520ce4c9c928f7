"""OpenLineage datasets of stage and publish tasks: MEG's tables, the collections, their columns and row counts.

Only OpenLineage's provider calls this; without the provider, nothing here runs.
Datasets are named according to https://openlineage.io/docs/spec/naming.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.openlineage.facet import (
    Dataset,
    InputDataset,
    OutputDataset,
    OutputStatisticsOutputDatasetFacet,
    SchemaDatasetFacet,
    SchemaDatasetFacetFields,
)
from airflow.providers.common.compat.sdk import BaseHook
from airflow.providers.openlineage.extractors import OperatorLineage

from bi_ops.airflow.connections import DEFAULT_DATABASE, MONGO_CONN_ID
from bi_ops.mongo.store import STAGING_SUFFIX

if TYPE_CHECKING:
    from bi_ops.catalog.slices import Slice

_COMMENT = re.compile(r"--.*")
_TABLE = re.compile(r"\b(?:FROM|JOIN)\s+([a-z_][a-z0-9_]*)\b(?!\()")
_CTE = re.compile(r"\b([a-z_][a-z0-9_]*) AS (?:NOT MATERIALIZED )?\(")


def extract_tables(sql: str) -> list[str]:
    """The tables that a rendered template reads, without its own CTEs."""
    code = _COMMENT.sub("", sql)
    return sorted(set(_TABLE.findall(code)) - set(_CTE.findall(code)))


def stage_lineage(slice_: Slice, sql: str, documents: int) -> OperatorLineage[Dataset, Any]:
    """The lineage of a stage task: MEG's tables to the staging collection."""
    meg = BaseHook.get_connection(f"meg_{slice_.region}")
    server = f"postgres://{meg.host}:{meg.port or 5432}"
    inputs: list[Dataset] = [
        InputDataset(namespace=server, name=f"{meg.schema}.public.{table}") for table in extract_tables(sql)
    ]
    return OperatorLineage(inputs=inputs, outputs=[_output(slice_, documents, staging=True)])


def publish_lineage(slice_: Slice, documents: int) -> OperatorLineage[Dataset, Any]:
    """The lineage of a publish task: the staging collection to the live collection."""
    namespace, name = _collection(slice_, staging=True)
    staged = InputDataset(namespace=namespace, name=name)
    return OperatorLineage(inputs=[staged], outputs=[_output(slice_, documents, staging=False)])


def _output(slice_: Slice, documents: int, *, staging: bool) -> OutputDataset:
    namespace, name = _collection(slice_, staging=staging)
    fields = [SchemaDatasetFacetFields(name=field.name, type=field.type.value) for field in slice_.job.fields]
    return OutputDataset(
        namespace=namespace,
        name=name,
        facets={"schema": SchemaDatasetFacet(fields=fields)},
        outputFacets={"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=documents)},
    )


def _collection(slice_: Slice, *, staging: bool) -> tuple[str, str]:
    mongo = BaseHook.get_connection(MONGO_CONN_ID)
    database = (mongo.schema or DEFAULT_DATABASE) + (STAGING_SUFFIX if staging else "")
    return f"mongodb://{mongo.host}:{mongo.port or 27017}", f"{database}.{slice_.job.name}"
