"""Tests the reports page in Airflow's own UI with a real browser."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx
import pytest
from playwright.sync_api import BrowserContext, FrameLocator, Page, Route, expect

from bi_ops.mongo.store import Store
from bi_ops.reports.definitions import load_reports
from dev import airflow
from dev.airflow import AirflowServices
from dev.embedded_stack import DatabaseServers
from tests.airflow_env import new_airflow
from tests.conftest import STACK
from tests.populated_store import AS_OF, XSS_NAME
from tests.reports.browser import NEEDS_CHROMIUM, SCREENSHOTS_DIR, draw_all_charts, log_in

pytestmark = [NEEDS_CHROMIUM, pytest.mark.airflow, pytest.mark.usefixtures("populated_store")]


@dataclass
class BrowserSession:
    """A browser that is logged in.

    Attributes:
        context: The browser.
        page: Its tab.
        url: Airflow's URL.
        hosts: Every host that received a request.
        problems: The errors on the console since the login.
    """

    context: BrowserContext
    page: Page
    url: str
    hosts: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def reports(self, view: str = "Charts") -> FrameLocator:
        """Open the page from Airflow's navigation, and then one of its views."""
        self.page.goto(self.url)
        self.page.get_by_text("BI reports").first.click()
        frame = self.page.frame_locator("iframe")
        expect(frame.locator(".tile")).to_have_count(7, timeout=30_000)
        frame.get_by_role("link", name=view, exact=True).click()
        expect(frame.get_by_role("heading", level=1)).to_have_text(view)
        expect(frame.locator("#content")).not_to_have_attribute("aria-busy", "true", timeout=30_000)
        return frame


@pytest.fixture(scope="module")
def services(servers: DatabaseServers) -> Iterator[AirflowServices]:
    settings = {
        "BI_AGGREGATE": "1",
        "MEG_REGIONS": "eu,uk",
        "BI_START_DATE": "2026-07-01",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{airflow.LOGIN}:admin",
        **servers.connections({region: f"meg_reports_{region}" for region in ("eu", "uk")}),
    }
    environment = new_airflow(servers, STACK, settings)
    with airflow.run_services(STACK, environment, servers.secret, scheduler=False, triggerer=False) as running:
        yield running


@pytest.fixture(scope="module")
def browser(services: AirflowServices) -> Iterator[BrowserSession]:
    with log_in(services) as (context, page):
        session = BrowserSession(context, page, services.url)
        page.on("request", lambda request: session.hosts.add(urlsplit(request.url).netloc))
        page.on("console", lambda message: session.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: session.problems.append(str(error)))
        yield session


def test_page_draws_all_reports(browser: BrowserSession) -> None:
    """The page draws every report and requests no other host."""
    frame = browser.reports()
    draw_all_charts(frame)
    for report in load_reports():
        figure = frame.locator(f"#{report.name}")
        marks = figure.locator("svg g.mark-rect path, svg g.mark-line path, svg g.mark-symbol path")
        assert marks.count() > 0, report.name
    browser.page.screenshot(path=SCREENSHOTS_DIR / "page.png")
    frame.get_by_role("link", name="Freshness", exact=True).click()
    expect(frame.locator("#freshness tbody tr")).to_have_count(14)
    assert frame.locator(".period a.missing").count() == 4
    assert frame.locator("#problem").is_hidden()
    assert browser.hosts - {""} == {urlsplit(browser.url).netloc}  # blob and data URLs have no host
    assert browser.problems == []


def test_markup_from_meg_is_text(browser: BrowserSession) -> None:
    """Markup in a name is shown as text."""
    dialogs: list[str] = []
    browser.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    frame = browser.reports()
    frame.locator("#institution_activity [data-action=table]").click()
    expect(frame.locator("#institution_activity td", has_text=XSS_NAME)).not_to_have_count(0)
    for view in ("overview", "clients"):
        browser.page.goto(f"{browser.url}/bi-reports/#/{view}?institution={quote(XSS_NAME)}")
        expect(browser.page.locator("#content", has_text=XSS_NAME)).to_be_visible()
        expect(browser.page.locator("#filters", has_text=XSS_NAME)).to_be_visible()
    assert dialogs == []


def test_filter_changes_charts(browser: BrowserSession) -> None:
    """A filter changes what is drawn."""
    frame = browser.reports()
    figure = frame.locator("#submissions_by_region")
    figure.locator("[data-action=table]").click()
    expect(figure.locator("tbody tr")).to_have_count(6)
    frame.get_by_role("button", name="Region: All").click()
    frame.get_by_role("checkbox", name="uk").check()
    expect(figure.locator("tbody tr")).to_have_count(3)
    assert set(figure.locator("tbody td:nth-child(2)").all_inner_texts()) == {"uk"}
    frame.get_by_role("button", name="Reset").click()
    expect(figure.locator("tbody tr")).to_have_count(6)
    frame.get_by_label("From", exact=True).select_option("")
    frame.get_by_label("To", exact=True).select_option("2025-12")
    expect(figure.locator(".chart")).to_have_text("Nothing to show for these filters.")


def test_page_downloads_csv_png_svg(browser: BrowserSession, populated_store: Store) -> None:
    """CSV, PNG and SVG can be downloaded."""
    frame = browser.reports()
    figure = frame.locator("#submissions_by_region")
    expect(figure.locator(".chart svg")).to_be_visible(timeout=30_000)
    with browser.page.expect_download() as download:
        figure.locator("[data-action=csv]").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
    total = sum(document["submissions"] for document in populated_store.live["monthly_submissions"].find())
    assert sum(int(row["submissions"]) for row in rows) == total
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<svg")):
        with browser.page.expect_download() as download:
            figure.locator(f"[data-action={kind}]").click()
        assert download.value.suggested_filename == f"submissions_by_region.{kind}"
        assert Path(download.value.path()).read_bytes().startswith(start)


def test_page_follows_dark_mode(browser: BrowserSession) -> None:
    """The page follows Airflow's dark mode."""
    frame = browser.reports()
    light = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    browser.page.evaluate("document.documentElement.classList.replace('light', 'dark')")
    expect(frame.locator("html")).to_have_class(re.compile("dark"))
    axis = frame.locator("#submissions_by_region .role-axis-label text").first
    expect(axis).to_have_css("fill", "rgb(230, 233, 238)")
    assert frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") != light
    browser.page.screenshot(path=SCREENSHOTS_DIR / "dark.png")


def test_page_fits_phone(browser: BrowserSession) -> None:
    """The page fits a phone."""
    phone = browser.context.new_page()
    phone.set_viewport_size({"width": 390, "height": 844})
    for view in ("overview", "charts", "freshness"):
        phone.goto(f"{browser.url}/bi-reports/#/{view}")
        expect(phone.locator("#content > *").first).to_be_visible(timeout=30_000)
        phone.wait_for_load_state("networkidle")
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390, view
        phone.screenshot(path=SCREENSHOTS_DIR / f"phone_{view}.png")
    phone.locator("#loads summary").click()
    row = phone.locator("#loads tbody tr").first
    assert row.evaluate("row => row.scrollWidth <= row.clientWidth && row.clientWidth < 390")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


def test_missing_month_links_to_dag(browser: BrowserSession) -> None:
    """A missing month links to the DAG, whose form triggers a run, and to the runs that were due at its end."""
    frame = browser.reports("Freshness")
    frame.locator(".period a.missing").first.click()
    browser.page.wait_for_url("**/dags/bi_monthly", timeout=15_000)
    frame = browser.reports("Freshness")
    frame.locator(".gaps summary").click()
    expect(frame.locator(".gaps li").first).to_contain_text("period: 2026-07")
    due = "run_after_gte=2026-08-01T00:00:00Z"
    with browser.page.expect_response(
        lambda answer: "/bi_monthly/dagRuns" in answer.url and due in unquote(answer.url)
    ):
        frame.locator(".gaps a", has_text="runs that were due").first.click()
    browser.page.wait_for_url(lambda url: f"/dags/bi_monthly/runs?{due}" in unquote(url), timeout=15_000)


def test_loads_link_to_runs(browser: BrowserSession, populated_store: Store) -> None:
    """The page lists the loads, the newest first, and links each to its run."""
    newest = populated_store.ledger.find_one(sort=[("published_at", -1)])
    assert newest
    frame = browser.reports("Freshness")
    rows = frame.locator("#loads tbody tr")
    expect(rows).to_have_count(populated_store.ledger.count_documents({}))
    expect(rows.first).to_be_hidden()
    frame.locator("#loads summary").click()
    expect(rows.first).to_contain_text(f"{newest['job']}{newest['region']}")
    expect(rows.first).to_contain_text("schedule")
    run = f"/runs/{newest['run_id']}"
    rows.first.locator("a").click()
    browser.page.wait_for_url(lambda url: unquote(url).endswith(run), timeout=15_000)


def test_page_problem_shows_its_command(browser: BrowserSession, populated_store: Store) -> None:
    """A region that the settings do not name is reported on the page, with the command as text."""
    row = {"_id": "forms:<b>old</b>", "job": "forms", "region": "<b>old</b>", "period": None, "as_of": AS_OF}
    populated_store.ledger.insert_one(
        {**row, "run_id": "r", "documents": 1, "published_at": AS_OF, "started_at": AS_OF}
    )
    try:
        frame = browser.reports("Freshness")
        problem = frame.locator("#freshness .problem")
        expect(problem).to_have_count(1)
        expect(problem.locator("strong")).to_have_text("region <b>old</b>")
        expect(problem.locator("pre")).to_contain_text('deleteMany({region: "<b>old</b>"})')
        browser.page.screenshot(path=SCREENSHOTS_DIR / "problem.png")
    finally:
        populated_store.ledger.delete_one({"_id": row["_id"]})


def test_page_busy_server_retries(browser: BrowserSession) -> None:
    """A report that a busy server refuses is requested again after the time in Retry-After."""
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if route.request.url in refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "too many"})

    browser.page.route("**/api/reports/*", refuse_once)
    try:
        frame = browser.reports()
        expect(frame.locator("#submissions_by_region .chart svg")).to_be_visible(timeout=30_000)
    finally:
        browser.page.unroute("**/api/reports/*")
    assert any("/submissions_by_region" in url for url in refused)


def test_copied_link_opens_view(browser: BrowserSession) -> None:
    """The link that is copied in Airflow's frame opens the same view with the same filters outside of it."""
    browser.context.grant_permissions(["clipboard-read", "clipboard-write"])
    frame = browser.reports("Freshness")
    frame.get_by_role("button", name="Region: All").click()
    frame.get_by_role("checkbox", name="uk").check()
    frame.get_by_role("button", name="Copy link").click()
    expect(frame.locator("#status")).to_have_text("Link copied")
    page = browser.context.new_page()
    page.goto(frame.locator("body").evaluate("() => navigator.clipboard.readText()"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Freshness")
    expect(page.locator("#freshness tbody tr")).to_have_count(7)
    page.close()


def test_page_requires_login(services: AirflowServices) -> None:
    """Without a login the page shows nothing."""
    for path in (
        "",
        "page.js",
        "figures.js",
        "vega.js",
        "api/page",
        "api/freshness",
        "api/reports/retention",
        "bi.charts",
    ):
        assert httpx.get(f"{services.url}/bi-reports/{path}", trust_env=False).status_code == 401, path


@pytest.mark.parametrize("address", ["", f"#/clients?institution={quote(XSS_NAME)}&region=uk&months=all&sort=name"])
def test_login_leads_back_to_view(browser: BrowserSession, services: AirflowServices, address: str) -> None:
    """A browser without a login that opens an address of the page is sent to the login, and then back to its view."""
    assert browser.context.browser
    context = browser.context.browser.new_context()
    page = context.new_page()
    page.goto(f"{browser.url}/bi-reports/{address}")
    page.fill("input[name=username]", airflow.LOGIN)
    page.fill("input[name=password]", services.password)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{browser.url}/bi-reports/{address}", timeout=30_000)
    if address:
        expect(page.get_by_role("heading", level=1)).to_have_text("Clients", timeout=30_000)
        expect(page.locator(".chip")).to_have_text(["Region: uk", f"Institution: {XSS_NAME}"])
    else:
        expect(page.locator(".tile")).to_have_count(7, timeout=30_000)
    context.close()
