"""The page of the reports in Airflow's own UI, seen through a real browser."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from playwright.sync_api import BrowserContext, FrameLocator, Page, Route, expect

from bi_ops.reports.definitions import reports
from bi_ops.store import Store
from dev import airflow
from dev.airflow import Airflow
from dev.stack import Databases
from tests.browser import NEEDS_CHROMIUM, SHOTS, logged_in
from tests.conftest import STACK
from tests.filled import AT, HOSTILE
from tests.installations import new_airflow

pytestmark = NEEDS_CHROMIUM


@dataclass
class Seen:
    """A browser that is logged in.

    Attributes:
        context: The browser.
        page: Its tab.
        url: Where Airflow is.
        hosts: Every host that was asked for anything.
        problems: What the console complained of since the login.
    """

    context: BrowserContext
    page: Page
    url: str
    hosts: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def reports(self) -> FrameLocator:
        """The page, opened from Airflow's navigation, when everything on it is drawn."""
        self.page.goto(self.url)
        self.page.get_by_text("BI reports").first.click()
        frame = self.page.frame_locator("iframe")
        expect(frame.locator("figure svg")).to_have_count(len(reports()), timeout=30_000)
        return frame


@pytest.fixture(scope="module")
def up(servers: Databases, filled: Store) -> Iterator[Airflow]:
    assert filled.live.name
    settings = {
        "BI_AGGREGATE": "1",
        "MEG_REGIONS": "eu,uk",
        "BI_START_DATE": "2026-07-01",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{airflow.LOGIN}:admin",
        **servers.connections({region: f"meg_reports_{region}" for region in ("eu", "uk")}),
    }
    environment = new_airflow(servers, STACK, settings)
    with airflow.running(STACK, environment, servers.secret) as running:
        yield running


@pytest.fixture(scope="module")
def seen(up: Airflow) -> Iterator[Seen]:
    with logged_in(up) as (context, page):
        watched = Seen(context, page, up.url)
        page.on("request", lambda request: watched.hosts.add(urlsplit(request.url).netloc))
        page.on("console", lambda said: watched.problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: watched.problems.append(str(error)))
        yield watched


def test_the_page_is_drawn_whole_and_asks_no_other_host(seen: Seen) -> None:
    frame = seen.reports()
    for report in reports():
        figure = frame.locator(f"#{report.name}")
        marks = figure.locator("svg g.mark-rect path, svg g.mark-line path, svg g.mark-symbol path")
        assert marks.count() > 0, report.name
    assert frame.locator("#freshness tbody tr").count() == 14
    assert frame.locator(".strip a.missing").count() == 4
    assert frame.locator("#problem").is_hidden()
    seen.page.screenshot(path=SHOTS / "page.png")
    assert seen.hosts - {""} == {urlsplit(seen.url).netloc}  # what is made within the page has no host
    assert seen.problems == []


def test_text_from_meg_is_text(seen: Seen) -> None:
    dialogs: list[str] = []
    seen.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    frame = seen.reports()
    frame.locator("#institutions_size_and_activity [data-do=table]").click()
    assert frame.locator("#institutions_size_and_activity td", has_text=HOSTILE).count() >= 1
    assert dialogs == []


def test_a_filter_changes_what_is_drawn(seen: Seen) -> None:
    frame = seen.reports()
    figure = frame.locator("#submissions_by_region")
    figure.locator("[data-do=table]").click()
    assert figure.locator("tbody tr").count() == 6
    frame.locator("select[name=region]").select_option(["uk"])
    expect(figure.locator("tbody tr")).to_have_count(3)
    assert set(figure.locator("tbody td:nth-child(2)").all_inner_texts()) == {"uk"}
    frame.locator("button[type=reset]").click()
    expect(figure.locator("tbody tr")).to_have_count(6)
    frame.locator("input[name=first]").fill("2031-01")
    expect(figure.locator(".chart")).to_have_text("Nothing to show for these filters.")


def test_csv_png_and_svg_are_downloaded(seen: Seen, filled: Store) -> None:
    frame = seen.reports()
    figure = frame.locator("#submissions_by_region")
    with seen.page.expect_download() as download:
        figure.locator("[data-do=csv]").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    total = sum(document["submissions"] for document in filled.live["monthly_submissions"].find())
    assert sum(int(row["submissions"]) for row in rows) == total
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<svg")):
        with seen.page.expect_download() as download:
            figure.locator(f"[data-do={kind}]").click()
        assert download.value.suggested_filename == f"submissions_by_region.{kind}"
        assert Path(download.value.path()).read_bytes().startswith(start)


def test_it_follows_airflows_dark_mode(seen: Seen) -> None:
    frame = seen.reports()
    light = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    seen.page.evaluate("document.documentElement.classList.replace('light', 'dark')")
    expect(frame.locator("html")).to_have_class(re.compile("dark"))
    expect(frame.locator("figure svg")).to_have_count(len(reports()), timeout=30_000)
    assert frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") != light
    seen.page.screenshot(path=SHOTS / "dark.png")


def test_it_can_be_read_on_a_phone(seen: Seen) -> None:
    phone = seen.context.new_page()
    phone.set_viewport_size({"width": 390, "height": 844})
    phone.goto(f"{seen.url}/bi-reports/")
    expect(phone.locator("figure svg")).to_have_count(len(reports()), timeout=30_000)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.screenshot(path=SHOTS / "phone.png")
    phone.close()


def test_a_missing_month_leads_to_the_run_that_loads_it(seen: Seen) -> None:
    frame = seen.reports()
    run = "scheduled__2026-08-01T00:00:00+00:00"
    with seen.page.expect_response(lambda answer: unquote(answer.url).endswith(f"/bi_monthly/dagRuns/{run}")):
        frame.locator(".strip a.missing").first.click()
    seen.page.wait_for_url(lambda url: unquote(url).endswith(f"/dags/bi_monthly/runs/{run}"), timeout=15_000)


def test_page_problem_shows_its_command(seen: Seen, filled: Store) -> None:
    """A region that the settings do not name is reported on the page, with the command as text."""
    row = {"_id": "forms:<b>old</b>", "job": "forms", "region": "<b>old</b>", "period": None, "as_of": AT}
    filled.ledger.insert_one({**row, "run_id": "r", "documents": 1, "published_at": AT, "started_at": AT})
    try:
        frame = seen.reports()
        problem = frame.locator("#freshness .problem")
        expect(problem).to_have_count(1)
        expect(problem.locator("strong")).to_have_text("region <b>old</b>")
        expect(problem.locator("pre")).to_contain_text('deleteMany({region: "<b>old</b>"})')
        seen.page.screenshot(path=SHOTS / "problem.png")
    finally:
        filled.ledger.delete_one({"_id": row["_id"]})


def test_page_busy_server_retries(seen: Seen) -> None:
    """A report that the server puts off is asked for again, after as long as the server says."""
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if route.request.url in refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "too many"})

    seen.page.route("**/api/reports/*", refuse_once)
    try:
        seen.reports()
    finally:
        seen.page.unroute("**/api/reports/*")
    assert len(refused) >= len(reports())


def test_whoever_is_not_logged_in_gets_nothing(up: Airflow) -> None:
    for path in (
        "",
        "page.js",
        "vega.js",
        "api/page",
        "api/freshness",
        "api/reports/retention",
        "bi.charts",
    ):
        assert httpx.get(f"{up.url}/bi-reports/{path}", trust_env=False).status_code == 401, path
