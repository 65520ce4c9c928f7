"""Tests the routes of figures: edges of the data, texts, the CSV, the cache, and the verdict on freshness."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from bi_ops.airflow.reports_connection import reports_client_settings
from bi_ops.mongo.store import Store
from bi_ops.reports.async_reader import MAX_CACHED, AsyncReader
from bi_ops.reports.freshness import overview
from bi_ops.reports.query_execution import Query, Steps
from bi_ops.reports.web import create_app
from bi_ops.settings import Settings
from dev.embedded_stack import DatabaseServers
from tests.meg_factory import utc
from tests.reports.figure_documents import AS_OF, ledger_row
from tests.reports.live_rows import insert_live
from tests.reports.page_data import insert_page_data

VIEWS = ("overview", "clients", "regions")


@pytest.fixture
def client(servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of the page's app, without login."""
    for name, value in servers.connections({}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MEG_REGIONS", "eu,uk")
    with TestClient(create_app(reports_client_settings)) as client:
        yield client


def insert_institution(store: Store, number: int, **changes: Any) -> dict[str, Any]:
    """Insert a client of the region eu; returns what its other documents have too."""
    row = {
        "region": "eu",
        "institution_id": number,
        "name": f"Hospital {number}",
        "country": "IE",
        "is_active": True,
        "users": 60,
        "users_active_30d": 6,
        "created_at": AS_OF - timedelta(days=900),
        "last_submitted_at": AS_OF - timedelta(days=47),
        "as_of": AS_OF,
        **changes,
    }
    insert_live(store.live["institutions"], row)
    return {"region": row["region"], "institution_id": number, "institution_name": row["name"]}


def insert_use(store: Store, client: dict[str, Any], form_id: int, **values: Any) -> None:
    """Insert a form's documents of two months and two quarters."""
    form = {**client, "form_id": form_id, "form_type": "audit", **values}
    for period, submissions in (("2026-09", 50), ("2026-10", 40)):
        platforms = {"web": submissions, "ios": 0, "android": 0, "public": 0}
        row = {**form, "period": period, "submissions": submissions, "submissions_by_platform": platforms}
        insert_live(store.live["monthly_submissions"], row)
        insert_live(store.live["monthly_sessions"], {**form, "period": period, "sessions": 4})
    for period, submissions, status in (("2026-Q2", 100, "retained"), ("2026-Q3", 38, "churned")):
        row = {**form, "period": period, "submissions": submissions, "status": status}
        insert_live(store.live["quarterly_form_churn"], row)


def publish_months(store: Store, *regions: str, months: Sequence[str] = ("2026-09", "2026-10")) -> None:
    for region in regions:
        for period in months:
            for job in ("monthly_submissions", "monthly_sessions"):
                store.ledger.insert_one(ledger_row(job, region, period))


def iter_values(value: Any) -> Iterator[Any]:
    """The values of a JSON document without those of its texts that name things."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from () if name in ("name", "title", "unit", "region") else iter_values(each)
    elif isinstance(value, list):
        for each in value:
            yield from iter_values(each)
    else:
        yield value


def test_views_without_data_are_empty(store: Store, client: TestClient) -> None:
    """In an empty database every figure is unknown or a list without rows, and nothing fails."""
    assert store.ledger.count_documents({}) == 0
    for view in VIEWS:
        response = client.get(f"/api/{view}")
        assert response.status_code == 200
        assert set(iter_values(response.json())) <= {None, ""}, view
    assert client.get("/api/clients.csv").text.startswith("\ufeffregion,institution_id,name,")
    assert client.get("/api/clients/eu/1").status_code == 404
    assert client.get("/api/page").json()["institutions"] == []


def test_client_shows_edges(store: Store, client: TestClient) -> None:
    """An archived form, a client without documents, one that has left, and a region without quarters."""
    publish_months(store, "eu", "uk")
    busy = insert_institution(store, 1)
    insert_use(store, busy, 11)
    insert_live(
        store.live["forms"],
        {**{name: busy[name] for name in ("region", "institution_id", "institution_name")}, "form_id": 11}
        | {"name": "Falls", "form_type": "audit", "is_published": True, "is_archived": True, "submissions_90d": 0},
    )
    insert_institution(store, 2, last_submitted_at=None)
    left = insert_institution(store, 3, is_active=False)
    insert_use(store, left, 31)
    elsewhere = insert_institution(store, 1, region="uk", name="Royal")
    insert_live(
        store.live["monthly_submissions"],
        {**elsewhere, "form_id": 1, "form_type": "audit", "period": "2026-10", "submissions": 7},
    )

    rows = {(row["region"], row["institution_id"]): row for row in client.get("/api/clients").json()["clients"]}
    assert rows["eu", 1]["attention"] == {
        "score": 60,
        "level": "at risk",
        "reasons": ["submissions down 62 % on last quarter", "no submission for 47 days"],
    }
    unused = rows["eu", 2]
    assert (unused["submissions"], unused["quarter_submissions"], unused["change_quarter"]) == (0, 0, None)
    assert (unused["forms_churned"], unused["forms_used_before"], unused["days_since_last"]) == (0, 0, None)
    assert unused["attention"]["reasons"] == ["no submission ever"]
    assert rows["eu", 3]["attention"] == {"score": 0, "level": "none", "reasons": []}
    royal = rows["uk", 1]
    assert (royal["submissions"], royal["quarter"], royal["quarter_submissions"]) == (7, None, None)

    view = client.get("/api/clients/eu/1").json()
    assert [(form["name"], form["is_archived"], form["status"]) for form in view["forms"]] == [
        ("Falls", True, "churned")
    ]
    assert view["people"] == []
    assert view["security"] is None
    figures = client.get("/api/overview").json()
    assert figures["quarter"] == "2026-Q3", "a region without quarters holds the others back from none"
    assert [row["institution_id"] for row in figures["fading"]] == [1], "a client that has left fades no more"
    regions = {row["region"]: row for row in client.get("/api/regions").json()["regions"]}
    assert regions["uk"]["quarter"] == {
        "period": None,
        "submissions": None,
        "change_quarter": None,
        "change_year": None,
    }
    assert regions["eu"]["year"] == {"periods": ["2025-11", "2026-10"], "submissions": None, "change": None}


def test_client_names_what_to_change(store: Store, client: TestClient) -> None:
    """Each risk has its points and advice at its setting, or beside them; an unknown setting is named."""
    publish_months(store, "eu")
    head = insert_institution(store, 1)
    insert_live(
        store.live["security_risk_clients"],
        {
            **head,
            "mfa_required": False,
            "password_min_length": 12,
            "ip_allowlist": None,
            "risks": ["inactive_admins", "mfa_not_required", "of_a_later_version"],
            "unknown": ["ip_allowlist"],
            "risk_score": 5,
            "risk_level": "medium",
            "users": 9,
            "admins": 2,
        },
    )
    security = client.get("/api/clients/eu/1").json()["security"]
    settings = {setting["name"]: setting for setting in security["settings"]}
    assert settings["mfa_required"] == {
        "name": "mfa_required",
        "title": "Second factor required",
        "value": False,
        "risk": "mfa_not_required",
        "points": 3,
        "advice": "Require a second factor from every user, or enforce single sign-on.",
    }
    assert (settings["password_min_length"]["risk"], settings["password_min_length"]["advice"]) == (None, "")
    unknown = settings["ip_allowlist"]
    assert (unknown["risk"], unknown["points"]) == (None, 0)
    assert unknown["advice"] == "MEG has no value: ask the client. Restrict logins to the hospital's own addresses."
    assert [(risk["code"], risk["points"], bool(risk["advice"])) for risk in security["other"]] == [
        ("inactive_admins", 2, True),
        ("of_a_later_version", None, False),
    ]
    assert (security["unknown"], security["risk_level"], security["admins"]) == (["ip_allowlist"], "medium", 2)


def test_month_ignores_removed_and_new_region(
    store: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A region that left the settings, or has loaded no month yet, holds no month back; a chosen one is shown."""
    publish_months(store, "eu", "uk")
    publish_months(store, "old", months=("2026-08", "2026-09"))
    store.ledger.insert_one(ledger_row("institutions", "new", None))
    for region in ("eu", "uk", "old"):
        insert_use(store, insert_institution(store, 1, region=region), 11)
    monkeypatch.setenv("MEG_REGIONS", "eu,uk,new")
    figures = client.get("/api/overview").json()
    assert (figures["month"], figures["tiles"][0]["value"]) == ("2026-10", 80)
    assert figures["tiles"][0]["change_month"] == {"percent": -20.0, "base": 100}
    assert [row["region"] for row in client.get("/api/regions").json()["regions"]] == ["", "eu", "new", "uk"]
    assert client.get("/api/overview?region=old").json()["month"] == "2026-09"
    assert client.get("/api/clients/old/1").json()["client"]["region"] == "old"


def test_views_follow_filters(store: Store, client: TestClient) -> None:
    """A month of one region only is partial; filters are checked; a client is found whatever the filters."""
    insert_page_data(store)
    figures = client.get("/api/overview").json()
    assert (figures["month"], figures["partial"]) == ("2026-09", {"2026-10": ["uk"]})
    assert client.get("/api/overview?region=eu").json()["month"] == "2026-10"
    for query in ("region=mars", "from_month=2026-13", "from_month=2026-10&to_month=2026-08", "sort=name"):
        assert [client.get(f"/api/{view}?{query}").status_code for view in VIEWS] == [422] * 3, query
    row = client.get("/api/clients/eu/3?region=uk&institution=Cottage+Hospital").json()["client"]
    assert (row["region"], row["name"]) == ("eu", "Klinik am See")
    assert client.get("/api/clients/eu/99").status_code == 404
    assert client.get("/api/clients/mars/1").status_code == 404
    for number in ("x", str(2**63)):
        assert client.get(f"/api/clients/eu/{number}").status_code == 422
    options = client.get("/api/page").json()["institutions"]
    assert {"region": "uk", "institution_id": 1, "name": "St Mary's"} in options
    assert len(options) == 23


def test_clients_csv_equals_table(store: Store, client: TestClient) -> None:
    """The CSV has each client and month, and no cell that a spreadsheet runs as a formula."""
    publish_months(store, "eu")
    insert_use(store, insert_institution(store, 1, name="=Zürich+1"), 11)
    insert_institution(store, 2, last_submitted_at=None)
    response = client.get("/api/clients.csv")
    assert response.content.startswith(b"\xef\xbb\xbf")
    lines = list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"))))
    table = client.get("/api/clients").json()["clients"]
    assert [line["name"] for line in lines] == [
        "'" + row["name"] if "=" in row["name"] else row["name"] for row in table
    ]
    for line, row in zip(lines, table, strict=True):
        assert line["attention_score"] == str(row["attention"]["score"])
        assert line["attention_reasons"] == "; ".join(row["attention"]["reasons"])
        months = {
            f"submissions {each['period']}": "" if each["value"] is None else str(each["value"])
            for each in row["series"]
        }
        assert months.items() <= line.items()
        assert line["change_quarter"] == ("" if row["change_quarter"] is None else str(row["change_quarter"]))


def test_figures_are_cached_until_publish(store: Store, client: TestClient) -> None:
    """A change shows with the next row of the ledger, and while a publish of several transactions is under way."""

    def clients() -> int:
        table = client.get("/api/clients").json()["clients"]
        assert len(client.get("/api/reports/institution_activity").json()["rows"]) == len(table)
        return len(table)

    publish_months(store, "eu")
    insert_institution(store, 1)
    assert clients() == 1
    insert_institution(store, 2)
    assert clients() == 1
    store.ledger.insert_one({**ledger_row("institutions", "eu", None), "published_at": AS_OF + timedelta(hours=1)})
    assert clients() == 2
    insert_institution(store, 3)
    store.ledger.update_one({"_id": "institutions:eu"}, {"$set": {"publishing": {"documents": 3, "of": 4}}})
    assert clients() == 3


@pytest.mark.usefixtures("store")
def test_cache_is_bounded(client: TestClient) -> None:
    """However many filters are asked for, the cache keeps the newest results, and one version of each."""
    reads: list[int] = []

    async def read_all(reader: AsyncReader) -> int:
        def steps(number: int) -> Steps[int]:
            reads.append(number)
            yield Query("institutions", [{"$limit": 1}])
            return number

        for number in [*range(MAX_CACHED + 5), MAX_CACHED + 4, 0]:
            assert await reader.read_cached(lambda number=number: steps(number), 2**40, 60, ("key", number)) == number
        for version in (1, 2, 2):
            await reader.read_cached(lambda version=version: steps(-version), 2**40, 60, ("key", 0), version)
        return len(reader._cache)

    assert client.portal is not None
    size = client.portal.call(read_all, AsyncReader(reports_client_settings))
    assert (size, reads) == (MAX_CACHED, [*range(MAX_CACHED + 5), 0, -1, -2])


def test_verdict_names_what_is_missing(store: Store) -> None:
    """Freshness says in one sentence whether all is published; each gap has the run that would fill it."""
    settings = Settings.from_env({"MEG_REGIONS": "eu", "BI_START_DATE": "2026-07-01"})
    now = utc(2026, 11, 2, 12)
    nothing = overview(store, settings, now).verdict
    assert (nothing.ok, nothing.total, nothing.missing) == (False, 7, 13), "four months of two jobs, and five jobs"
    assert nothing.text.startswith("13 missing: monthly_submissions eu 2026-07, monthly_submissions eu 2026-08, ")
    assert nothing.text.endswith(" and 8 more")

    publish_months(store, "eu", months=("2026-07", "2026-08", "2026-09", "2026-10"))
    for job in ("top_users", "institutions", "forms", "security_risk_clients"):
        store.ledger.insert_one(ledger_row(job, "eu", None))
    store.ledger.insert_one(ledger_row("quarterly_form_churn", "eu", "2026-Q3") | {"_id": "quarterly_form_churn:eu"})
    complete = overview(store, settings, now).verdict
    assert (complete.ok, complete.missing) == (True, 0)
    assert complete.text == "All 7 up to date, last published 36 h ago"

    store.ledger.delete_many({"_id": {"$in": ["monthly_sessions:eu:2026-09", "quarterly_form_churn:eu"]}})
    view = overview(store, settings, now)
    assert view.verdict.text == "2 missing: monthly_sessions eu 2026-09, quarterly_form_churn eu"
    statuses = {status.job: status for status in view.jobs}
    gap, filled = statuses["monthly_sessions"].periods[-2:]
    assert (gap.trigger_path, gap.params) == (
        "/dags/bi_monthly",
        {"jobs": ["monthly_sessions"], "regions": ["eu"], "period": "2026-09"},
    )
    assert (filled.trigger_path, filled.params) == ("", {})
    churn = statuses["quarterly_form_churn"]
    assert (churn.trigger_path, churn.params["period"]) == ("/dags/bi_quarterly", "2026-Q3")
    assert statuses["forms"].trigger_path == ""
