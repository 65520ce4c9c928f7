"""Loads the tiles of the Atlas Charts dashboard from include/atlas/tiles.yaml: one number each."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bi_ops.catalog.jobs import Job, get_job
from bi_ops.catalog.sql_templates import include_dir
from bi_ops.reports.definitions import Stages
from bi_ops.reports.yaml_file import read_yaml


class Tile(BaseModel):
    """A number, aggregated over the documents of one collection.

    Attributes:
        title: Its title.
        question: The question that it answers.
        collection: The collection that it reads.
        value: The field that is aggregated.
        aggregate: How the values are aggregated.
        query: The stages that select the documents, or compute the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    question: str
    collection: str
    value: str
    aggregate: Literal["sum", "count"]
    query: Stages = Field(default_factory=list)

    @property
    def job(self) -> Job:
        """The job that loads its collection."""
        return get_job(self.collection)


class Tiles(BaseModel):
    """The content of the file: at most one tile for each column of the dashboard's grid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiles: tuple[Tile, ...] = Field(min_length=1, max_length=8)


@lru_cache
def load_tiles() -> tuple[Tile, ...]:
    """All tiles, in their order.

    Raises:
        ReportError: The file does not contain tiles.
    """
    return read_yaml(include_dir() / "atlas" / "tiles.yaml", Tiles).tiles
