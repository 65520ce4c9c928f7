"""The reports, read from include/charts/: one file each, with its aggregation pipeline and how it is drawn."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bi_ops.catalog.jobs import Job, get_job
from bi_ops.catalog.sql import include_dir
from bi_ops.errors import ReportError

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
"""The stages that a pipeline may have: they read one collection and write nothing, and none of them runs code."""
_CODE = ("$function", "$accumulator", "$where")


class Column(BaseModel):
    """One column of a report's rows.

    Attributes:
        name: What the pipeline calls it.
        title: What people read.
        kind: What it holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    kind: Literal["text", "integer", "number"]


class AtlasChart(BaseModel):
    """The same report as a chart of Atlas Charts, which draws fields of a collection, aggregated.

    Attributes:
        type: One of the chart types whose export is known.
        category: The field whose values are the categories.
        value: The field that is aggregated.
        aggregate: How.
        series: The field by which marks are coloured, if any.
        query: The stages that make the fields which the collection itself does not have.
        latest: Whether it is about the latest period alone.
        note: In what it differs from the report, where Charts cannot say the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["Line", "Stacked Column", "Grouped Bar", "Donut"]
    category: str
    value: str
    aggregate: Literal["sum", "mean", "max", "count"]
    series: str = ""
    query: list[dict[str, Any]] = Field(default_factory=list)
    latest: bool = False
    note: str = ""


class Report(BaseModel):
    """One report.

    Attributes:
        name: The name of its file.
        title: What it shows.
        question: What it answers.
        section: Under which heading it stands.
        order: Where.
        collection: What it reads.
        periods: Whether it is about every period asked for, or about the latest of them.
        pipeline: What makes its rows.
        columns: Its rows' columns.
        spec: How it is drawn (Vega-Lite, without its data).
        atlas: How Atlas Charts draws it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    question: str
    section: str
    order: int
    collection: str
    periods: Literal["all", "latest"] = "all"
    pipeline: list[dict[str, Any]]
    columns: list[Column]
    spec: dict[str, Any]
    atlas: AtlasChart

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
    found = [_read(path) for path in (include_dir() / "charts").glob("*.json")]
    return tuple(sorted(found, key=lambda report: report.order))


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
    where = f"include/charts/{path.name}"
    try:
        report = Report.model_validate({"name": path.stem, **json.loads(path.read_text())})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise ReportError(
            "invalid report definition", context=where, actual=f"{place}: {problem['msg']}", hint="Correct the file."
        ) from None
    except ValueError as error:
        raise ReportError(
            "the report's file is not valid JSON", context=where, actual=str(error), hint="Correct the file."
        ) from None
    _check_read_only(report, where)
    return report


def _check_read_only(report: Report, where: str) -> None:
    text = json.dumps(report.pipeline)
    stages = [name for stage in report.pipeline for name in stage]
    odd = [name for name in stages if name not in _STAGES] + [name for name in _CODE if f'"{name}"' in text]
    if odd:
        raise ReportError(
            "the report's pipeline is not read-only",
            context=where,
            expected=f"only the stages {', '.join(sorted(_STAGES))}, without code",
            actual=odd[0],
            hint="Remove the stage or the code from the pipeline.",
        )
