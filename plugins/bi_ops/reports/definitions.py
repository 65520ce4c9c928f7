"""Loads the reports from include/charts/, one file each: aggregation pipeline, columns and chart."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator

from bi_ops.catalog.jobs import Job, get_job
from bi_ops.catalog.sql_templates import include_dir
from bi_ops.errors import ReportError
from bi_ops.reports.chart_defaults import complete_spec
from bi_ops.reports.yaml_file import read_yaml

_STAGES = {
    "$addFields",
    "$group",
    "$limit",
    "$match",
    "$project",
    "$replaceRoot",
    "$set",
    "$setWindowFields",
    "$sort",
    "$unset",
    "$unwind",
}
"""The stages allowed in a pipeline: they read one collection, write nothing and run no code."""
_CODE = ("$function", "$accumulator", "$where")


Stages = list[dict[str, JsonValue]]
"""The stages of an aggregation pipeline."""


class Column(BaseModel):
    """One column of a report's rows.

    Attributes:
        name: Its field in the pipeline's output.
        title: Its heading.
        type: The type of its values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    type: Literal["text", "integer", "number"]


class AtlasChart(BaseModel):
    """The same report as a chart of Atlas Charts, which draws fields of a collection, aggregated.

    Attributes:
        type: A chart type whose export format is known.
        category: The field whose values are the categories.
        value: The field that is aggregated.
        aggregate: How the values are aggregated.
        series: The field by which marks are coloured, if any.
        query: The stages that add fields which the collection does not have.
        latest: Whether it shows only the latest period.
        note: How it differs from the report, where Charts cannot draw the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["Line", "Stacked Column", "Grouped Bar", "Donut"]
    category: str
    value: str
    aggregate: Literal["sum", "mean", "max", "count"]
    series: str = ""
    query: Stages = Field(default_factory=list)
    latest: bool = False
    note: str = ""


class Report(BaseModel):
    """One report.

    Attributes:
        name: The name of its file.
        title: Its title.
        question: The question that it answers.
        section: The heading under which the page shows it.
        order: Its position among the reports.
        collection: The collection that it reads.
        periods: Whether it shows all selected periods, or the latest of them.
        empty_message: What the page says of selected institutions without a row.
        pipeline: The aggregation pipeline that computes its rows.
        selection: The stages that select the rows to show; the CSV, and a choice of institutions, have all.
        columns: The columns of its rows.
        spec: The chart, as a Vega-Lite specification without data; a file has its short form (chart_defaults.py).
        atlas: The chart in Atlas Charts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    question: str
    section: str
    order: int
    collection: str
    periods: Literal["all", "latest"] = "all"
    empty_message: str = ""
    pipeline: Stages
    selection: Stages = Field(default_factory=list)
    columns: list[Column]
    spec: dict[str, Any]
    atlas: AtlasChart

    @field_validator("spec")
    @classmethod
    def _complete_spec(cls, spec: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return complete_spec(spec, info.data.get("columns", ()))

    @property
    def job(self) -> Job:
        """The job that loads its collection."""
        return get_job(self.collection)


@lru_cache
def load_reports() -> tuple[Report, ...]:
    """All reports, in their order.

    Raises:
        ReportError: A file is not a report, or its pipeline could do more than read its collection.
    """
    reports = [_read(path) for path in (include_dir() / "charts").glob("*.yaml")]
    return tuple(sorted(reports, key=lambda report: report.order))


def get_report(name: str) -> Report:
    """The report of this name.

    Raises:
        ReportError: There is none.
    """
    for report in load_reports():
        if report.name == name:
            return report
    raise ReportError(
        "unknown report",
        context="report",
        expected=", ".join(report.name for report in load_reports()),
        actual=repr(name),
        hint="Use one of the expected names.",
    )


def _read(path: Path) -> Report:
    report = read_yaml(path, Report, name=path.stem)
    _check_read_only(report, f"include/charts/{path.name}")
    return report


def _check_read_only(report: Report, context: str) -> None:
    pipeline = [*report.pipeline, *report.selection]
    text = json.dumps(pipeline)
    stages = [name for stage in pipeline for name in stage]
    forbidden = [name for name in stages if name not in _STAGES] + [name for name in _CODE if f'"{name}"' in text]
    if forbidden:
        raise ReportError(
            "the report's pipeline is not read-only",
            context=context,
            expected=f"only the stages {', '.join(sorted(_STAGES))}, without code",
            actual=forbidden[0],
            hint="Remove the stage or the code from the pipeline.",
        )
