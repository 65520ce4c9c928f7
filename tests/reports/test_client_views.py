"""Tests the views of clients and regions in a real browser: each question is answered in at most two clicks."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from dev.mongo import Mongo
from tests.reports.browser import NEEDS_CHROMIUM, SCREENSHOTS_DIR, open_page
from tests.reports.client_data import (
    AS_OF,
    CLIENTS,
    FORM_TYPES,
    HOSPITAL,
    MARKUP,
    MISSING_MONTH,
    MONTH,
    MONTHS,
    PARTIAL_MONTHS,
    QUARTERS,
    QUIET_HOSPITAL,
    client_documents,
)
from tests.reports.conftest import SETTINGS
from tests.reports.page_server import page_server

pytestmark = NEEDS_CHROMIUM
DOCUMENTS = client_documents()


@dataclass
class Reports:
    """The page in a browser.

    Attributes:
        page: The browser's tab.
        url: The page's address.
        clicks: The clicks since a view was opened.
    """

    page: Page
    url: str
    clicks: int = 0

    def open(self, view: str, options: str = "") -> None:
        """Open a view with all months, as a copied link does."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}#/{view}?months=all{options}")
        expect(self.page.locator("#content:not([aria-busy]) > *").first).to_be_visible(timeout=30_000)
        self.clicks = 0

    def click(self, target: Locator) -> None:
        target.click()
        self.clicks += 1

    def click_view(self, name: str) -> None:
        self.click(self.page.get_by_role("navigation", name="Views").get_by_role("link", name=name))
        expect(self.page.get_by_role("heading", level=1)).to_have_text(name)
        expect(self.page.locator("#content:not([aria-busy]) .data-table").first).to_be_visible(timeout=30_000)

    def column(self, title: str, table: str = "Clients") -> list[str]:
        """The texts of a column of the table with this name, top down."""
        box = self.page.get_by_role("region", name=table, exact=True)
        titles = [text.strip() for text in box.locator("thead th").all_inner_texts()]
        place = titles.index(title) + 1
        return [text.strip() for text in box.locator(f"tbody tr > :nth-child({place})").all_inner_texts()]


@pytest.fixture
def reports(chromium: Browser, clients_url: str) -> Iterator[Reports]:
    """The page at its first view."""
    with open_page(chromium, f"{clients_url}#/overview?months=all") as page:
        expect(page.locator(".tile")).to_have_count(7, timeout=30_000)
        yield Reports(page, clients_url)


def csv_files(reports: Reports) -> list[list[dict[str, str]]]:
    """The rows of each CSV that the view offers, in the view's order."""
    links = reports.page.locator("#content a[download]")
    for figure in reports.page.locator("figure").all():
        figure.scroll_into_view_if_needed()
        expect(figure.locator("a[href]")).to_have_count(1)
    texts = [
        reports.page.request.get(f"{reports.url}{link.get_attribute('href')}").body().decode("utf-8-sig")
        for link in links.all()
    ]
    return [list(csv.DictReader(io.StringIO(text))) for text in texts]


def quarter_totals() -> dict[tuple[str, int], dict[str, int]]:
    """The submissions of each client and quarter."""
    totals: dict[tuple[str, int], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for form in DOCUMENTS["quarterly_form_churn"]:
        totals[form["region"], form["institution_id"]][form["period"]] += form["submissions"]
    return totals


def change_text(now: int, base: int) -> str:
    """A change as the page shows it."""
    change = round(100 * (now - base) / base, 1)
    sign = "▲ +" if change > 0 else "▼ \N{MINUS SIGN}" if change < 0 else ""
    return f"{sign}{abs(change):g} %"


def expected_at_risk() -> dict[str, list[str]]:
    """The reasons of each client that is at risk, by its name."""
    totals, at_risk = quarter_totals(), {}
    for client in DOCUMENTS["institutions"]:
        key = (client["region"], client["institution_id"])
        now, before = totals[key][QUARTERS[-1]], totals[key][QUARTERS[-2]]
        days = (AS_OF - client["last_submitted_at"]).days
        own = [form for form in DOCUMENTS["quarterly_form_churn"] if (form["region"], form["institution_id"]) == key]
        churned = sum(form["status"] == "churned" and form["period"] == QUARTERS[-1] for form in own)
        decline = (before - now) / before
        reasons = {
            f"submissions down {int(100 * decline)} % on last quarter": (decline >= 0.25) * 20 + (decline >= 0.5) * 20,
            f"no submission for {days} days": (days >= 30) * 20 + (days >= 60) * 20,
            f"{churned} of {len(FORM_TYPES)} forms churned": (churned >= 2)
            * (10 if churned < len(FORM_TYPES) * 2 / 3 else 20),
        }
        if client["is_active"] and sum(reasons.values()) >= 40:
            at_risk[client["name"]] = [text for text, points in reasons.items() if points]
    return at_risk


def test_question_who_is_leaving(reports: Reports) -> None:
    """Who is about to leave us: the clients at risk, with the reasons in words."""
    reports.click_view("Clients")
    reports.click(reports.page.get_by_role("button", name="At risk"))
    expected = expected_at_risk()
    assert 3 < len(expected) < sum(CLIENTS.values())
    shown = dict(zip(reports.column("Client"), reports.column("Attention"), strict=True))
    assert shown.keys() == expected.keys()
    for name, reasons in expected.items():
        assert shown[name].startswith("At risk, ")
        for reason in reasons:
            assert reason in shown[name]
    assert reports.clicks == 2


def test_question_which_region_grew(reports: Reports) -> None:
    """Which region grew last quarter: a sentence and the table name each region with its change."""
    reports.click_view("Regions")
    totals = quarter_totals()
    sums = {
        region: [sum(row[quarter] for key, row in totals.items() if key[0] == region) for quarter in QUARTERS]
        for region in CLIENTS
    }
    expect(reports.page.locator(".answer")).to_contain_text(QUARTERS[-1])
    answer = reports.page.locator(".answer").inner_text()
    changes = dict(
        zip(
            reports.column("Region", "Growth by region"),
            reports.column("On last quarter", "Growth by region"),
            strict=True,
        )
    )
    assert list(changes) == ["All regions", *CLIENTS]
    for region, numbers in sums.items():
        change = round(100 * (numbers[-1] - numbers[-2]) / numbers[-2], 1)
        assert f"{region} {'grew' if change > 0 else 'fell'} by {abs(change):g} %" in answer
        assert changes[region] == change_text(numbers[-1], numbers[-2])
    assert reports.clicks == 1


def test_question_ten_largest(reports: Reports) -> None:
    """What are our ten largest clients and where are they heading: by users, each with its changes and months."""
    reports.click_view("Clients")
    reports.click(reports.page.get_by_role("button", name="Ten largest"))
    active = [client for client in DOCUMENTS["institutions"] if client["is_active"]]
    largest = sorted(active, key=lambda client: -client["users"])[:10]
    assert reports.column("Client") == [client["name"] for client in largest]
    totals = quarter_totals()
    expected = [totals[client["region"], client["institution_id"]] for client in largest]
    assert reports.column("On last quarter") == [change_text(row[QUARTERS[-1]], row[QUARTERS[-2]]) for row in expected]
    assert reports.column("On last year") == [change_text(row[QUARTERS[-1]], row[QUARTERS[0]]) for row in expected]
    trends = reports.page.locator("tbody svg.sparkline")
    expect(trends).to_have_count(10)
    months = [form for form in DOCUMENTS["monthly_submissions"] if form["institution_name"] == largest[0]["name"]]
    last = sum(form["submissions"] for form in months if form["period"] == MONTH)
    description = trends.first.get_attribute("aria-label") or ""
    assert f"last {last:,} in {MONTH}" in description
    assert f"not loaded: {MISSING_MONTH}" in description
    assert reports.clicks == 2


def test_question_people_at_hospital(reports: Reports) -> None:
    """Who are the people to talk to at hospital X: found without its accents, best rank first."""
    reports.click_view("Clients")
    reports.page.get_by_role("searchbox").fill("hopital saint-andre")
    reports.click(reports.page.get_by_role("link", name=HOSPITAL))
    expect(reports.page.locator("h1")).to_have_text(HOSPITAL)
    people = [person for person in DOCUMENTS["top_users"] if (person["region"], person["institution_id"]) == ("eu", 3)]
    expected = [(str(person["rank"]), person["user_name"]) for person in people]
    table = "People to talk to"
    shown = list(zip(reports.column("Rank in eu", table), reports.column("Person", table), strict=True))
    assert len(expected) > 3
    assert shown == sorted(expected, key=lambda person: (int(person[0]), person[1]))
    assert reports.clicks == 2


def test_question_is_it_up_to_date(reports: Reports) -> None:
    """Is this up to date: the first view says so without a click."""
    expect(reports.page.locator("#verdict")).to_contain_text("missing")
    verdict = reports.page.request.get(f"{reports.url}api/freshness").json()["verdict"]
    assert verdict["text"] in reports.page.locator("#verdict").inner_text()
    assert reports.clicks == 0


def test_table_sorts_by_keyboard(reports: Reports) -> None:
    """A column sorts with the keyboard in both directions, unknown values last; a copied link keeps the order."""
    reports.open("clients", "&size=50")
    header = reports.page.get_by_role("columnheader", name="Security risk")
    for direction, first in (("descending", "high, 6"), ("ascending", "low, 0")):
        header.get_by_role("button").focus()
        reports.page.keyboard.press("Enter")
        expect(header).to_have_attribute("aria-sort", direction)
        risks = reports.column("Security risk")
        assert risks[0] == first
        assert risks[-1] == "not assessed"
    assert "sort=risk" in reports.page.url
    before = reports.column("Client")
    reports.page.reload()
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert reports.column("Client") == before


def test_table_pages(reports: Reports) -> None:
    """The table shows 25 clients a page; the choice of 50 shows all, and the search begins at the first page."""
    reports.open("clients")
    page, total = reports.page, sum(CLIENTS.values())
    status = page.locator(".table-pages [role=status]")
    expect(status).to_have_text(f"1 to 25 of {total} clients")
    first = reports.column("Client")
    page.get_by_role("button", name="Next page").click()
    expect(status).to_have_text(f"26 to {total} of {total} clients")
    names = first + reports.column("Client")
    assert sorted(name.removesuffix(" (inactive)") for name in names) == sorted(
        client["name"] for client in DOCUMENTS["institutions"]
    )
    page.get_by_role("searchbox").fill("uk cottage")
    expect(status).to_have_text(f"1 of {total} clients")
    assert reports.column("Client") == [QUIET_HOSPITAL]
    page.get_by_role("searchbox").fill("no such client")
    expect(status).to_have_text(f"None of {total} clients match.")
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Rows on a page").select_option("50")
    expect(status).to_have_text(f"{total} of {total} clients")
    assert "size=50" in page.url


def test_client_without_top_people(reports: Reports) -> None:
    """A hospital without people among the most active says so and lists none."""
    reports.open("clients/uk/2")
    text = "None of this client's people is among the ten most active of uk in any action."
    expect(reports.page.locator("[data-name=people] p")).to_have_text(text)
    expect(reports.page.locator("[data-name=people] table")).to_have_count(0)
    expect(reports.page.locator("[data-name=security] p")).to_contain_text("Not assessed")


def test_client_shows_use_and_security(reports: Reports) -> None:
    """One client: months with the year before, forms with status, and each risk with what to change."""
    reports.open("clients/eu/3")
    page = reports.page
    expect(page.locator("[data-name=months] figure svg")).to_have_count(2)
    figure = page.locator("#client-submissions")
    expect(figure.locator(".note")).to_contain_text(f"Not loaded: {MISSING_MONTH}")
    figure.get_by_role("button", name="Table").click()
    rows = {row[0]: row[1:] for row in map(str.split, figure.locator("tbody tr").all_inner_texts())}
    own = [form for form in DOCUMENTS["monthly_submissions"] if (form["region"], form["institution_id"]) == ("eu", 3)]
    sums = {month: sum(form["submissions"] for form in own if form["period"] == month) for month in (MONTH, "2025-09")}
    assert rows[MONTH] == [f"{sums[MONTH]:,}", f"{sums['2025-09']:,}"]
    assert reports.column("Form", "Forms") == ["Audit 3", "Checklist 3", "Survey 3"]
    assert reports.column("Status", "Forms") == ["Retained"] * 3
    advice = dict(
        zip(
            reports.column("Setting", "Security settings"),
            reports.column("What to change", "Security settings"),
            strict=True,
        )
    )
    assert sum(map(bool, advice.values())) >= 4
    expect(page.locator("[data-name=security]")).to_contain_text("Risk high, 6 points")
    page.get_by_role("link", name="All clients").click()
    expect(page.locator("h1")).to_have_text("Clients")


def test_downloads_are_whole(reports: Reports, tmp_path: Path) -> None:
    """The CSV has every client; the image of a chart has title, period, filters and date."""
    reports.open("clients", "&search=cottage")
    with reports.page.expect_download() as csv_download:
        reports.page.get_by_role("link", name="Clients: all rows as CSV").click()
    csv_download.value.save_as(tmp_path / "clients.csv")
    with (tmp_path / "clients.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(CLIENTS.values())
    reports.open("clients/eu/3")
    assert [len(rows) for rows in csv_files(reports)] == [
        sum(person["institution_id"] == 3 and person["region"] == "eu" for person in DOCUMENTS["top_users"]),
        len(MONTHS),
        len(MONTHS),
        len(FORM_TYPES),
        len(FORM_TYPES),
        7,
    ]
    reports.open("regions", "&region=uk")
    growth, months, *_ = csv_files(reports)
    assert [row["region"] for row in growth] == ["all", "uk"]
    assert {row["region"]: row["submissions"] for row in months if row["period"] == MONTH}.keys() == {"all", "uk"}
    figure = reports.page.locator("#growth-uk")
    expect(figure.locator(".chart svg")).to_have_count(1)
    with reports.page.expect_download() as svg_download:
        figure.get_by_role("button", name="SVG").click()
    svg_download.value.save_as(tmp_path / "growth.svg")
    texts = (tmp_path / "growth.svg").read_text()
    for text in ("uk: submissions and sessions", "Region: uk", "Period:", "Saved:"):
        assert text in texts


def test_regions_name_what_is_missing(reports: Reports) -> None:
    """Months that no region has, and those that one lacks, are named in words."""
    reports.open("regions")
    note = reports.page.locator("#growth-all .note")
    expect(note).to_contain_text(f"Not loaded: {MISSING_MONTH}.")
    for month, region in PARTIAL_MONTHS.items():
        expect(note).to_contain_text(f"{month} without {region}")
    platforms = reports.page.locator("#platforms-all")
    platforms.scroll_into_view_if_needed()
    expect(platforms.locator(".chart svg")).to_have_count(1)
    platforms.get_by_role("button", name="Table").click()
    cells = platforms.locator("tbody tr").first.locator("td").all_inner_texts()
    forms = [form["submissions_by_platform"] for form in DOCUMENTS["monthly_submissions"] if form["period"] == MONTH]
    web, total = sum(form["web"] for form in forms), sum(sum(form.values()) for form in forms)
    assert cells == ["web", f"{web:,}", f"{round(100 * web / total, 1):g}"]


def test_views_of_empty_database(chromium: Browser, mongod: Mongo, tmp_path: Path) -> None:
    """Without data a view says so, and fails nowhere."""
    texts = {"clients": "No clients to show.", "regions": "No quarter is loaded."}
    with page_server(tmp_path, mongod.port, database="empty", **SETTINGS) as url:
        for view, text in texts.items():
            with open_page(chromium, f"{url}/bi-reports/#/{view}") as page:
                expect(page.locator("#content")).to_contain_text(text, timeout=30_000)
                expect(page.locator("#problem")).to_be_hidden()


def test_client_name_with_markup_is_text(reports: Reports) -> None:
    """A name with markup is text in the list, in the heading and in charts; the list leads to the client."""
    reports.open("clients", "&search=klinik")
    assert reports.column("Client") == [MARKUP]
    reports.page.screenshot(path=SCREENSHOTS_DIR / "client_search.png")
    reports.click(reports.page.get_by_role("link", name=MARKUP))
    expect(reports.page.get_by_role("heading", level=1)).to_have_text(MARKUP)
    expect(reports.page.locator("#client-submissions h3")).to_have_text(f"{MARKUP}: submissions")
    expect(reports.page.locator("[data-name=months] .chart svg")).to_have_count(2)
