"""OpenLineage: which of MEG's tables a collection was made of, with its columns and how many documents there are.

Only OpenLineage's provider asks for this; where it is not installed, nothing here runs.
Datasets are named as https://openlineage.io/docs/spec/naming has it.
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

from bi_ops.connections import DEFAULT_DATABASE, MONGO
from bi_ops.store import STAGING_SUFFIX

if TYPE_CHECKING:
    from bi_ops.slices import Slice

_COMMENT = re.compile(r"--.*")
_READ = re.compile(r"\b(?:FROM|JOIN)\s+([a-z_][a-z0-9_]*)\b(?!\()")
_DEFINED = re.compile(r"\b([a-z_][a-z0-9_]*) AS (?:NOT MATERIALIZED )?\(")


def tables_of(sql: str) -> list[str]:
    """The tables that a rendered template reads: what it selects from and does not define itself."""
    code = _COMMENT.sub("", sql)
    return sorted(set(_READ.findall(code)) - set(_DEFINED.findall(code)))


def of_stage(of: Slice, sql: str, documents: int) -> OperatorLineage[Dataset, Any]:
    """MEG's tables, read into the staging collection."""
    meg = BaseHook.get_connection(f"meg_{of.region}")
    server = f"postgres://{meg.host}:{meg.port or 5432}"
    inputs: list[Dataset] = [
        InputDataset(namespace=server, name=f"{meg.schema}.public.{table}") for table in tables_of(sql)
    ]
    return OperatorLineage(inputs=inputs, outputs=[_output(of, documents, staging=True)])


def of_publish(of: Slice, documents: int) -> OperatorLineage[Dataset, Any]:
    """The staging collection, made live."""
    namespace, name = _collection(of, staging=True)
    staged = InputDataset(namespace=namespace, name=name)
    return OperatorLineage(inputs=[staged], outputs=[_output(of, documents, staging=False)])


def _output(of: Slice, documents: int, *, staging: bool) -> OutputDataset:
    namespace, name = _collection(of, staging=staging)
    fields = [SchemaDatasetFacetFields(name=field.name, type=field.kind.value) for field in of.job.fields]
    return OutputDataset(
        namespace=namespace,
        name=name,
        facets={"schema": SchemaDatasetFacet(fields=fields)},
        outputFacets={"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=documents)},
    )


def _collection(of: Slice, *, staging: bool) -> tuple[str, str]:
    mongo = BaseHook.get_connection(MONGO)
    database = (mongo.schema or DEFAULT_DATABASE) + (STAGING_SUFFIX if staging else "")
    return f"mongodb://{mongo.host}:{mongo.port or 27017}", f"{database}.{of.job.name}"
