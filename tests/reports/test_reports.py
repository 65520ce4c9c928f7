"""Tests the reports: their figures, their filters, their page, and their exports."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pymongo.database import Database

from bi_ops.airflow.reports_connection import reports_client_settings
from bi_ops.catalog.jobs import JOBS, Job, LoadMode, get_job
from bi_ops.catalog.periods import Cadence
from bi_ops.catalog.sql_templates import include_dir
from bi_ops.mongo.store import Store
from bi_ops.reports.atlas import build_dashboard
from bi_ops.reports.atlas_tiles import load_tiles
from bi_ops.reports.definitions import Report, get_report, load_reports
from bi_ops.reports.export import export_dashboard
from bi_ops.reports.filters import Filters
from bi_ops.reports.freshness import freshness
from bi_ops.reports.query_execution import execute
from bi_ops.reports.report_queries import report_steps, run_report
from bi_ops.reports.web import create_app
from bi_ops.settings import Settings
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.conftest import ROOT
from tests.populated_store import AS_OF, MONTHS, XSS_NAME

pytestmark = pytest.mark.usefixtures("populated_store")


@pytest.fixture
def client(servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of the page's app, without login."""
    for name, value in servers.connections({}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEG_REGIONS", "eu,uk")
    with TestClient(create_app(reports_client_settings)) as client:  # one event loop for all requests, as in a server
        yield client


def get_rows(store: Store, report: Report, filters: Filters | None = None) -> list[dict[str, Any]]:
    return run_report(store.live, report, filters or Filters()).rows


def test_reports_cover_every_collection() -> None:
    """Each collection has a report."""
    assert len(load_reports()) >= 14
    assert {report.collection for report in load_reports()} == {job.name for job in JOBS}
    assert len({report.order for report in load_reports()}) == len(load_reports())


@pytest.mark.parametrize("report", load_reports(), ids=lambda report: report.name)
def test_report_rows_match_columns(populated_store: Store, report: Report) -> None:
    """Each report's rows have its columns."""
    rows = get_rows(populated_store, report)
    assert rows
    for column in report.columns:
        values = [row[column.name] for row in rows if row[column.name] is not None]
        assert values, f"{column.name} has no value"
        assert all(isinstance(value, str if column.type == "text" else (int, float)) for value in values)


def test_filters_select_rows(populated_store: Store) -> None:
    """Filters keep the rows that they name."""
    report = get_report("submissions_by_region")
    assert {row["region"] for row in get_rows(populated_store, report, Filters(regions=("uk",)))} == {"uk"}
    september = get_rows(populated_store, report, Filters(from_month="2026-09", to_month="2026-09"))
    assert {row["month"] for row in september} == {"2026-09"}
    by_type = get_rows(populated_store, get_report("submissions_by_form_type"), Filters(form_types=("audit",)))
    assert {row["form_type"] for row in by_type} == {"audit"}
    quarters = get_rows(populated_store, get_report("form_churn"), Filters(from_month="2026-08", to_month="2026-08"))
    assert {row["quarter"] for row in quarters} == {"2026-Q3"}
    [name] = populated_store.live["institutions"].distinct("name", {"institution_id": 2, "region": "eu"})
    institutions = get_rows(populated_store, get_report("institution_activity"), Filters(institutions=(name,)))
    assert {row["institution"] for row in institutions} <= {name}


@pytest.mark.parametrize(
    "query",
    [
        'region={"$ne": null}',
        "region[$ne]=eu",
        "region=mars",
        "institution=$where",
        "from_month=2026-13",
        "from_month=9999-12",
        "to_month=0001-01",
        "&".join(f"region={number}" for number in range(300)),
        "from_month=2026-10&to_month=2026-08",
        "period_start=2026",
        "collection=bi_loads",
        "form_type=",
    ],
)
def test_filter_operator_is_refused(client: TestClient, query: str) -> None:
    """A filter is a value and never an operator."""
    response = client.get(f"/api/reports/submissions_by_region?{query}")
    assert response.status_code == 422, response.text
    assert response.json()["detail"]


def test_unknown_report_is_422(client: TestClient) -> None:
    """An unknown report is refused."""
    response = client.get("/api/reports/bi_loads")
    assert (response.status_code, "unknown report" in response.text) == (422, True)


def test_csv_equals_rows(client: TestClient, populated_store: Store) -> None:
    """The CSV has the values of all rows, and a byte-order mark; the chart may show fewer rows."""
    for report in load_reports():
        steps = report_steps(report, Filters(), all_rows=True)
        rows = execute(populated_store.live, steps).rows
        shown = client.get(f"/api/reports/{report.name}").json()["rows"]
        assert all(row in rows for row in shown)
        response = client.get(f"/api/reports/{report.name}.csv")
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        assert response.content.startswith(b"\xef\xbb\xbf")
        lines = list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"))))
        assert [*lines[0]] == [column.name for column in report.columns]
        expected = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
        assert lines == expected


def test_page_is_read_only_and_local(client: TestClient) -> None:
    """The page writes nothing and names no other host."""
    for route in client.app.routes:
        assert route.methods <= {"GET", "HEAD"}
    modules = [f"/{file.name}" for file in (ROOT / "plugins/bi_ops/reports/static").glob("*.js")]
    for path in ("/", "/page.css", "/api/page", "/api/freshness", *modules):
        response = client.get(path)
        assert response.status_code == 200, path
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", response.text), path
    assert len(client.get("/vega.js").text) > 500_000
    assert client.post("/api/page").status_code == 405
    assert client.get("/openapi.json").status_code == client.get("/docs").status_code == 404


@pytest.mark.parametrize("report", load_reports(), ids=lambda report: report.name)
def test_atlas_charts_use_existing_fields(populated_store: Store, report: Report) -> None:
    """Each Atlas chart uses fields that exist."""
    chart = report.atlas
    fields = {field for field in (chart.category, chart.value, chart.series) if field}
    computed = {name for stage in chart.query for name in (*stage.get("$addFields", ()), *stage.get("$project", ()))}
    assert fields <= get_fields(report.job) | computed
    [item] = [
        item for item in json.loads(build_dashboard(LIVE_DATABASE))["items"].values() if item["title"] == report.title
    ]
    stages = json.loads(item["query"] or "[]")
    documents = list(populated_store.live[report.collection].aggregate([*stages, {"$limit": 1}]))
    assert documents
    for field in fields:
        value: Any = documents[0]
        for part in field.split("."):
            value = value[part]


def test_atlas_tiles_equal_collections(populated_store: Store) -> None:
    """Each tile's number, as Charts computes it, is that of the newest month that every region has."""
    late = {"$nor": [{"region": "uk", "period": MONTHS[-1]}]}
    month = {"period": MONTHS[-2]}
    live = populated_store.live
    submissions = list(live["monthly_submissions"].find(month))
    used = [form for form in submissions if form["submissions"]]
    expected = {
        "Submissions": sum(form["submissions"] for form in used),
        "Sessions": sum(form["sessions"] for form in live["monthly_sessions"].find(month)),
        "Active institutions": len({(form["region"], form["institution_id"]) for form in used}),
        "Active users, 30 days": sum(document["users_active_30d"] for document in live["institutions"].find()),
        "Forms in use, %": round(100 * len(used) / len(submissions), 1),
        "High security risk": live["security_risk_clients"].count_documents({"risk_level": "high"}),
    }
    numbers = compute_tiles(populated_store, {"$match": late})
    assert numbers == expected
    assert all(numbers.values())


def test_atlas_tiles_equal_overview(client: TestClient, populated_store: Store) -> None:
    """Each tile has the title and the number of the page's overview; "Clients at risk" needs two collections."""
    shown = {tile["title"]: tile for tile in client.get("/api/overview").json()["tiles"]}
    del shown["Clients at risk"]
    figures = {f"{title}, %" if tile["unit"] == "percent" else title: tile["value"] for title, tile in shown.items()}
    numbers = compute_tiles(populated_store, {"$match": {}})
    assert [*numbers.items()] == [*figures.items()]


def compute_tiles(store: Store, dashboard_filter: dict[str, Any]) -> dict[str, float]:
    """Each tile's number, computed as Atlas Charts does: the dashboard's filter, the tile's query, the aggregate."""
    numbers = {}
    for tile in load_tiles():
        documents = list(store.live[tile.collection].aggregate([dashboard_filter, *tile.query]))
        values = [document[tile.value] for document in documents]
        numbers[tile.title] = sum(values) if tile.aggregate == "sum" else len(values)
    return numbers


def test_recommended_indexes_are_used(servers: DatabaseServers) -> None:
    """Each recommended index serves a query of the page; the sums by client and month read no document."""
    recommended = json.loads((include_dir() / "mongo" / "indexes.json").read_text())
    client = {"region": "$region", "institution_id": "$institution_id", "period": "$period"}
    used: dict[str, set[str]] = {}
    with servers.mongo_admin.client() as admin:
        live = admin[LIVE_DATABASE]
        for collection, indexes in recommended.items():
            for index in indexes:
                live[collection].create_index([*index["key"].items()], name=index["name"])
            period = "2026-Q3" if collection == "quarterly_form_churn" else MONTHS[-1]
            measure = get_job(collection).measure
            group = {"$group": {"_id": client, "sum": {"$sum": f"${measure}"}}}
            by_period = find_plan(live, collection, [{"$match": {"period": {"$in": [period]}}}, group])
            one_client = find_plan(live, collection, [{"$match": {"region": "eu", "institution_id": 2}}, group])
            used[collection] = set(re.findall(r'"indexName": "(\w+)"', by_period + one_client))
            if collection != "quarterly_form_churn":
                assert '"FETCH"' not in by_period
            live[collection].drop_indexes()
    assert used == {name: {index["name"] for index in indexes} for name, indexes in recommended.items()}


def find_plan(database: Database[dict[str, Any]], collection: str, pipeline: list[dict[str, Any]]) -> str:
    """The plan that MongoDB chooses, as JSON."""
    command = {"aggregate": collection, "pipeline": pipeline, "cursor": {}}
    explained = database.command("explain", command, verbosity="queryPlanner")
    planner = explained.get("queryPlanner") or explained["stages"][0]["$cursor"]["queryPlanner"]
    return json.dumps(planner["winningPlan"])


def test_freshness_lists_missing_periods(populated_store: Store) -> None:
    """Freshness lists missing periods."""
    settings = Settings.from_env({"MEG_REGIONS": "eu,uk,au", "BI_START_DATE": "2026-07-01"})
    statuses = {(status.job, status.region): status for status in freshness(populated_store, settings, AS_OF)}
    assert len(statuses) == 3 * len(JOBS)
    months = statuses["monthly_submissions", "eu"]
    assert [(period.period, period.documents is None) for period in months.periods] == [
        ("2026-07", True),
        ("2026-08", False),
        ("2026-09", False),
        ("2026-10", False),
    ]
    assert (
        months.periods[0].run_path
        == "/dags/bi_monthly/runs?run_after_gte=2026-08-01T00%3A00%3A00Z&run_after_lte=2026-08-01T00%3A00%3A00Z"
    )
    assert (months.as_of, months.documents > 0) == ("2026-10", True)
    assert statuses["institutions", "uk"].as_of == "2026-11-01T00:00:00+00:00"
    never = statuses["forms", "au"]
    assert (never.as_of, never.documents, never.periods) == ("", 0, ())
    assert all(period.documents is None for period in statuses["monthly_sessions", "au"].periods)
    later = {
        (status.job, status.region): status
        for status in freshness(populated_store, settings, AS_OF + timedelta(days=30, hours=1))
    }
    assert not any(status.overdue for (_, region), status in statuses.items() if region != "au")
    weekly = {job.name for job in JOBS if job.cadence is Cadence.WEEKLY}
    assert {job for (job, region), status in later.items() if status.overdue and region == "eu"} == weekly
    assert len(later["monthly_submissions", "eu"].periods) == 4, "a month is not missing before its deadline"
    much_later = freshness(populated_store, settings, AS_OF + timedelta(days=93))
    assert all(status.overdue for status in much_later)


def test_removed_region_marks_no_month(
    client: TestClient, populated_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page expects new months only of the regions of the settings."""
    row = {"_id": "monthly_submissions:old", "job": "monthly_submissions", "region": "old", "period": "2026-01"}
    populated_store.ledger.insert_one({**row, "published_at": AS_OF})
    path = "/api/reports/submissions_by_region"
    try:
        removed = client.get(path).json()["partial"]
        monkeypatch.setenv("MEG_REGIONS", "eu,uk,old")
        late = client.get(path).json()["partial"]
    finally:
        populated_store.ledger.delete_one({"_id": row["_id"]})
    assert not any("old" in regions for regions in removed.values())
    assert late["2026-10"] == ["old"]


def test_corrected_connection_is_used(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corrected connection is used without a restart."""
    correct = os.environ["AIRFLOW_CONN_BI_MONGO"]
    monkeypatch.setenv("AIRFLOW_CONN_BI_MONGO", json.dumps({**json.loads(correct), "password": "wrong"}))
    response = client.get("/api/freshness")
    assert (response.status_code, "authentication to MongoDB failed" in response.text) == (503, True)
    monkeypatch.setenv("AIRFLOW_CONN_BI_MONGO", correct)
    assert client.get("/api/freshness").status_code == 200


def test_slow_report_blocks_no_other(client: TestClient, servers: DatabaseServers) -> None:
    """A slow report is reported and blocks no other."""
    assert client.get("/api/reports/retention").status_code == 200
    with servers.mongo_admin.client() as admin:
        fail = {"configureFailPoint": "maxTimeAlwaysTimeOut", "mode": "alwaysOn"}
        admin.admin.command(fail)
        response = client.get("/api/reports/retention")
        admin.admin.command({**fail, "mode": "off"})
    assert (response.status_code, "took too long" in response.text) == (422, True)
    assert client.get("/api/reports/retention").status_code == 200


def test_exported_dashboard_is_self_contained(populated_store: Store, tmp_path: Path) -> None:
    """The exported page needs nothing else."""
    settings = Settings.from_env({"MEG_REGIONS": "eu,uk"})
    page = export_dashboard(populated_store, settings, tmp_path / "report").read_text()
    assert page.count("<svg") == len(load_reports())
    freshness_table = page[page.index('class="freshness"') : page.index("</table>")]
    assert re.search(r"<td>\d{4}-\d\d-\d\d \d\d:\d\d</td>", freshness_table)
    assert not re.search(r"\d\.\d{3,}|\dT\d", freshness_table)
    assert XSS_NAME not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    outside = [url for url in re.findall(r"""(?:src|href)=["']([^"'#]+)""", page) if not url.startswith("data:")]
    assert outside == []
    for report in load_reports():
        picture = (tmp_path / "report" / f"{report.name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 3_000


def test_export_process_ends(servers: DatabaseServers, tmp_path: Path) -> None:
    """A cached connection is closed before the driver's threads end."""
    program = (
        "from bi_ops.airflow.reports_connection import open_reports_store\n"
        "with open_reports_store() as store: print(store.ledger.count_documents({}))"
    )
    environment = {**os.environ, **servers.connections({}), "PYTHONPATH": "plugins", "AIRFLOW_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(result.stdout.splitlines()[-1]) > 0


def get_fields(job: Job) -> set[str]:
    """Every field that a collection's documents have."""
    declared = {field.name for field in job.fields} | {field.name.partition(".")[0] for field in job.fields}
    head = {"_id", "region", "loaded_at", "run_id", "schema_version"}
    periods = {"period", "period_start"} if job.mode is LoadMode.REPLACE_PERIOD else set()
    return declared | head | periods | ({"as_of"} if job.is_snapshot else set())
