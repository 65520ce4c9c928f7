"""Tests the report files: what they may contain, and the errors of a file that is not as expected."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bi_ops.catalog.sql_templates import include_dir
from bi_ops.errors import ReportError
from bi_ops.reports import definitions
from bi_ops.reports.chart_defaults import complete_spec
from bi_ops.reports.definitions import Report, get_report, load_reports

pytestmark = pytest.mark.fast

RETENTION = (include_dir() / "charts" / "retention.yaml").read_text()


@pytest.fixture
def load_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Report]]:
    """Loads the text of a report's file, `bad.yaml`."""
    (tmp_path / "charts").mkdir()
    monkeypatch.setattr(definitions, "include_dir", lambda: tmp_path)

    def load(text: str) -> Report:
        (tmp_path / "charts" / "bad.yaml").write_text(text)
        definitions.load_reports.cache_clear()
        [report] = load_reports()
        return report

    yield load
    definitions.load_reports.cache_clear()


@pytest.mark.parametrize(
    ("stage", "refused"),
    [
        ({"$out": "institutions"}, "$out"),
        ({"$merge": {"into": "institutions"}}, "$merge"),
        ({"$lookup": {"from": "bi_loads"}}, "$lookup"),
        ({"$match": {"$where": "sleep(1000)"}}, "$where"),
        ({"$addFields": {"a": {"$function": {"body": "", "args": [], "lang": "js"}}}}, "$function"),
    ],
)
def test_writing_pipeline_is_refused(load_text: Callable[[str], Report], stage: dict[str, Any], refused: str) -> None:
    """A pipeline that could write, read another collection or run code is refused."""
    definition = {**yaml.safe_load(RETENTION), "pipeline": [stage]}
    with pytest.raises(ReportError, match=re.escape(refused)):
        load_text(yaml.safe_dump(definition))


@pytest.mark.parametrize(
    ("replaced", "by", "message"),
    [
        ("title: Retention by quarter", "title: Retention: by quarter", "line 1, column 17: mapping values"),
        ("  - {$match: {before: {$gt: 0}}}", "  - {$match: {before: {$gt: 0}}", "line 2"),
        ("title: Retention by quarter", "\ttitle: Retention by quarter", "line 1, column 1: found character '\\t'"),
        ("title: Retention by quarter", "title: \x00", "special characters are not allowed"),
        ("title: Retention by quarter", "title: 1", "title: Input should be a valid string"),
        ("title: Retention by quarter", "caption: Retention by quarter", "title: Field required"),
        ("type: number", "type: percent", "columns.4.type: Input should be 'text', 'integer' or 'number'"),
        ("{$gt: 0}", "{$gt: 2026-01-01}", "pipeline.3.$match"),
        ("x: quarter", "x: quarters", "spec: encoding.x: no column or transform is named 'quarters'"),
        ("  mark: line\n", "", "spec: expected a mark and an encoding"),
        (RETENTION, "- a list", "Expected: a mapping of fields to values"),
        (RETENTION, "", "NoneType at the top level"),
    ],
)
def test_broken_file_is_located(load_text: Callable[[str], Report], replaced: str, by: str, message: str) -> None:
    """A file that is not as expected is reported with its name, and the line or the field."""
    assert replaced in RETENTION
    with pytest.raises(ReportError) as error:
        load_text(RETENTION.replace(replaced, by))
    assert "include/charts/bad.yaml" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("report", load_reports(), ids=lambda report: report.name)
def test_report_chart_uses_own_columns(report: Report) -> None:
    """Each report draws its own columns, with a title for each axis."""
    drawn = set(re.findall(r'"field": "(\w+)"', json.dumps(report.spec)))
    computed = {step["as"] for step in report.spec.get("transform", ())}
    assert drawn <= {column.name for column in report.columns} | computed
    titled = [channel for channel in ("x", "y") if channel in report.spec["encoding"]]
    assert all("title" in report.spec["encoding"][channel] for channel in titled)
    shown = {channel["field"] for channel in report.spec["encoding"]["tooltip"]}
    assert shown == {column.name for column in report.columns} - {"institution_id"}
    assert complete_spec(report.spec, report.columns) == report.spec


def test_short_spec_has_vega_lite_defaults() -> None:
    """What a short specification leaves out comes from the columns; what it gives stays."""
    columns = get_report("retention").columns
    encoding = {"x": "quarter", "y": {"field": "before", "axis": {"format": "d"}}, "color": {"value": "red"}}
    spec = complete_spec({"mark": "line", "encoding": {**encoding, "tooltip": [{"field": "quarter"}]}}, columns)
    title = "In use in the previous quarter"
    assert spec == {
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {"field": "quarter", "type": "ordinal", "title": "Quarter"},
            "y": {
                "field": "before",
                "type": "quantitative",
                "title": title,
                "axis": {"tickMinStep": 1, "format": "d"},
            },
            "color": {"value": "red"},
            "tooltip": [{"field": "quarter"}],
        },
    }
