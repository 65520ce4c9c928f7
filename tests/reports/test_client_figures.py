"""Compares every figure of the views with its definition in plain Python, over generated documents and filters."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from pymongo.database import Database

from bi_ops.reports.client import client_steps
from bi_ops.reports.clients import list_clients
from bi_ops.reports.filters import Filters
from bi_ops.reports.overview import overview_steps
from bi_ops.reports.query_execution import execute
from bi_ops.reports.regions import region_steps
from bi_ops.reports.usage import usage_steps
from bi_ops.reports.web_dependencies import json_response
from tests.reports.figure_documents import EXAMPLE_SETTINGS, Rows, filters, insert_rows, published_documents
from tests.reports.plain_figures import PlainFigures


def as_json(value: Any) -> Any:
    return json.loads(json_response(value).body)


@settings(EXAMPLE_SETTINGS, max_examples=40)
@given(rows=published_documents(), filters=filters())
def test_figures_equal_plain_python(database: Database[dict[str, Any]], rows: Rows, filters: Filters) -> None:
    """The overview, the clients, one client and the regions equal their definitions, with every filter."""
    insert_rows(database, rows)
    plain = PlainFigures(rows, filters)
    usage = execute(database, usage_steps(filters))
    table = list_clients(usage)
    assert (table.month, table.quarter) == (plain.month, plain.quarter)
    assert as_json(table)["clients"] == plain.clients()
    check_overview(as_json(execute(database, overview_steps(filters, usage, table))), plain)
    check_regions(as_json(execute(database, region_steps(filters))), plain)
    check_clients(database, rows, replace(filters, institutions=()))


def check_overview(view: Any, plain: PlainFigures) -> None:
    for tile, expected in zip(view["tiles"], plain.tiles(), strict=True):
        assert {name: tile[name] for name in expected} == expected
    active = [row for row in plain.clients() if row["is_active"]]
    by_change = sorted(row["change_quarter_count"] for row in active if row["change_quarter_count"])
    assert [row["change_quarter_count"] for row in view["fading"]] == [count for count in by_change if count < 0][:5]
    assert [row["change_quarter_count"] for row in view["growing"]] == [
        count for count in by_change[::-1] if count > 0
    ][:5]
    assert view["attention"] == [row for row in active if row["attention"]["score"]][:5]
    assert all(row in active for row in (*view["fading"], *view["growing"]))
    months = plain.loaded["monthly_submissions"].values()
    newer = {month for month in set().union(*months) if plain.selects(month) and month > (plain.month or "")}
    assert view["partial"] == {month: plain.lacking("monthly_submissions", month) for month in newer}
    shown = [*plain.documents("institutions", "name"), *plain.documents("security_risk_clients", "name")]
    assert view["as_of"] == min((row["as_of"].isoformat() for row in shown), default=None)


def check_regions(view: Any, plain: PlainFigures) -> None:
    assert [row["region"] for row in view["regions"]] == ["", *plain.regions]
    assert (view["month"], view["quarter"]) == (plain.month, plain.quarter)
    for row in view["regions"]:
        assert row == plain.region(row["region"])


def check_clients(database: Database[dict[str, Any]], rows: Rows, filters: Filters) -> None:
    plain = PlainFigures(rows, filters)
    usage = execute(database, usage_steps(filters))
    table = list_clients(usage)
    for row in table.clients[:2]:
        view = as_json(execute(database, client_steps(filters, usage, table, row)))
        expected = plain.client(view["client"])
        assert view["months"] == expected["months"]
        assert view["peers"] == expected["peers"]
        assert {form["form_id"]: form["status"] for form in view["forms"]} == expected["forms"]
        types = {each["form_type"]: (each["submissions"], each["forms_in_use"]) for each in view["form_types"]}
        assert types == expected["form_types"]
        assert [(each["action"], each["rank"], each["user_name"]) for each in view["people"]] == expected["people"]
        people = {person["user_name"] for person in rows["top_users"]}
        assert not any(name in json.dumps({**view, "people": []}) for name in people)
