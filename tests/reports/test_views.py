"""Tests the page's frame in a real browser, without Airflow: views, address, filters, links and files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from bi_ops.reports.definitions import load_reports
from tests.reports.axe import list_violations, load_axe
from tests.reports.browser import NEEDS_CHROMIUM, SCREENSHOTS_DIR, choose, open_page
from tests.reports.page_data import HOSPITAL, INSTITUTIONS

pytestmark = NEEDS_CHROMIUM
VIEWS = {
    "overview": "#/overview",
    "clients": "#/clients",
    "client": "#/clients/eu/1",
    "regions": "#/regions",
    "charts": "#/charts",
    "freshness": "#/freshness",
}
SIZES = ((1280, 800), (390, 844))
BROKEN_PERIODS = """
(widths) => {
  const result = { seen: 0, broken: [] };
  for (const width of widths) {
    for (const tile of document.querySelectorAll(".tile")) tile.style.width = width ? `${width}px` : "";
    for (const line of document.querySelectorAll(".tile .change, .tile .note")) {
      const nodes = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
      while (nodes.nextNode()) {
        const { currentNode: node } = nodes;
        for (const { 0: period, index } of node.data.matchAll(/\\d{4}-\\d\\d(-\\d\\d)?/g)) {
          const range = document.createRange();
          range.setStart(node, index);
          range.setEnd(node, index + period.length);
          result.seen += 1;
          if (new Set([...range.getClientRects()].map(({ top }) => top)).size > 1) result.broken.push([width, period]);
        }
      }
    }
  }
  return result;
}
"""
"""How many months and dates the tiles show, at each of some widths in pixels, and those on two lines; 0 is as it is."""


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """The page as it opens, at 1280x800."""
    with open_page(chromium, url) as page:
        expect(page.locator(".tile")).to_have_count(7)
        yield page


def show(page: Page, address: str) -> None:
    """Change the page's address, and wait until its view is complete."""
    page.evaluate("address => { location.hash = address; }", address)
    page.wait_for_load_state("networkidle")
    expect(page.locator("#content:not([aria-busy]) > *").first).to_be_visible(timeout=30_000)


def test_overview_fits_window(chromium: Browser, clients_url: str) -> None:
    """Tiles, verdict and lists are seen without scrolling, and names lead to clients."""
    with open_page(chromium, clients_url) as page:
        expect(page.locator(".tile")).to_have_count(7)
        expect(page.locator(".tile svg")).to_have_count(4)
        expect(page.locator("#verdict")).to_contain_text("missing: ")
        for name in ("attention", "growing", "fading"):
            expect(page.locator(f"[data-name={name}] li")).to_have_count(5)
        expect(page.locator("[data-name=attention] li").first).to_contain_text("at risk, ")
        assert page.evaluate("document.documentElement.scrollHeight") <= 800
        name = page.locator("[data-name=attention] a").first.inner_text()
        page.locator("[data-name=attention] a").first.click()
        heading = page.get_by_role("heading", level=1)
        expect(heading).to_have_text(name)
        expect(heading).to_be_focused()
        page.locator("#verdict a").click()
        expect(heading).to_have_text("Freshness")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_tiles_break_no_period(chromium: Browser, clients_url: str, width: int, height: int) -> None:
    """A month or date in a tile stays on one line, however wide the tile is."""
    with open_page(chromium, clients_url, viewport={"width": width, "height": height}) as page:
        expect(page.locator(".tile")).to_have_count(7)
        assert page.evaluate(BROKEN_PERIODS, [0]) == {"seen": 11, "broken": []}
        tiles = page.evaluate(BROKEN_PERIODS, list(range(60, 200, 2)))
        assert tiles == {"seen": 11 * 70, "broken": []}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_views_are_accessible(chromium: Browser, clients_url: str, scheme: str) -> None:
    """No view has a serious violation of WCAG, or is wider than the window; headings are in order."""
    with open_page(chromium, clients_url, color_scheme=scheme) as page:
        load_axe(page)
        for name, address in VIEWS.items():
            for width, height in SIZES:
                page.set_viewport_size({"width": width, "height": height})
                show(page, address)
                page.screenshot(path=SCREENSHOTS_DIR / f"{name}_{scheme}_{width}.png")
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
                assert list_violations(page) == [], (name, width)
            levels = page.locator("h1:visible, h2:visible, h3:visible, h4:visible").evaluate_all(
                "headings => headings.map(({ tagName }) => Number(tagName[1]))"
            )
            assert levels[0] == 1
            assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), (name, levels)


def test_address_keeps_view_and_filters(page: Page) -> None:
    """Filters stay from view to view; reload, back and forward restore both."""
    choose(page, "Region", "uk")
    expect(page.locator("#status")).to_contain_text("updated")
    expect(page.locator("#verdict a")).to_have_attribute("href", "#/freshness?region=uk")
    page.get_by_role("link", name="Freshness", exact=True).click()
    page.wait_for_url("**/#/freshness?region=uk")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Freshness")
    expect(page.locator(".chip")).to_have_text(["Region: uk"])
    page.go_back()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    expect(page.locator(".chip")).to_have_count(0)
    page.go_forward()
    expect(page.locator(".chip")).to_have_text(["Region: uk"])
    show(page, "#/unheard-of?region=uk")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


def test_link_of_task_opens_chart(page: Page) -> None:
    """An address that names a collection, as tasks link to it, scrolls to its first chart."""
    first = next(report for report in load_reports() if report.collection == "top_users")
    show(page, "#top_users")
    figure = page.locator(f"#{first.name}")
    expect(figure.locator("svg")).to_be_visible()
    expect(figure).to_be_in_viewport()
    assert page.locator("header").evaluate("header => header.getBoundingClientRect().top") == 0
    expect(page.get_by_role("link", name="Charts", exact=True)).to_have_attribute("aria-current", "page")


def test_charts_load_in_view(page: Page) -> None:
    """A chart is requested when it comes into view, and again after a filter only while it is there."""
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url) if "/api/reports/" in request.url else None)
    show(page, "#/charts")
    shown = len(requested)
    assert 0 < shown < len(load_reports())
    last = page.locator("figure").last
    last.scroll_into_view_if_needed()
    expect(last.locator("svg")).to_be_visible()
    page.wait_for_load_state("networkidle")
    requested.clear()
    choose(page, "Region", "uk")
    expect(page.locator("#status")).to_contain_text("charts in view updated")
    page.wait_for_load_state("networkidle")
    assert 0 < len(requested) < len(load_reports())
    assert all("region=uk" in address for address in requested)
    first = page.locator("#submissions_by_region")
    first.scroll_into_view_if_needed()
    expect(first.locator(".role-legend-label text")).to_have_text(["uk"])


def test_region_narrows_institutions(page: Page) -> None:
    """A region leaves its own institutions to choose from, and drops those of others; chips work by keyboard."""
    choose(page, "Institution", f"{HOSPITAL}North")
    choose(page, "Region", "uk")
    expect(page.locator(".chip")).to_have_text(["Region: uk"])
    page.get_by_role("button", name="Institution: All").click()
    options = page.locator("[data-name=institution] .options label")
    expect(options).to_have_text(sorted(INSTITUTIONS["uk"]))
    page.keyboard.press("Escape")
    choose(page, "Form type", "audit")
    page.get_by_role("button", name="Remove Region: uk").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove Form type: audit")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Form type: All")).to_be_focused()
    expect(page.locator("#chips")).to_be_hidden()


def test_months_are_chosen(page: Page) -> None:
    """A choice of months and both ends of a range are in the address, and are sent as months."""
    choices = {"3": r"from_month=\d{4}-\d\d$", "year": r"from_month=\d{4}-01$", "all": r"overview\?$"}
    for choice, pattern in choices.items():
        with page.expect_request(re.compile(pattern)):
            page.get_by_label("Months").select_option(choice)
        assert page.url.endswith(f"months={choice}")
    with page.expect_request("**/api/overview?to_month=2026-08"):
        page.get_by_label("To", exact=True).select_option("2026-08")
    expect(page.get_by_label("Months")).to_have_value("custom")
    with page.expect_request("**/api/overview?from_month=2026-05&to_month=2026-08"):
        page.get_by_label("From", exact=True).select_option("2026-05")
    page.get_by_role("button", name="Reset").click()
    page.wait_for_url("**/#/overview")
    expect(page.get_by_label("Months")).to_have_value("24")


def test_link_is_copied_or_shown(page: Page) -> None:
    """The address is copied; where the clipboard is denied, it is shown selected."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, "Region", "uk")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#status")).to_have_text("Link copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.locator("#copy-link").click()
    field = page.get_by_label("Address of this view")
    expect(field).to_be_focused()
    expect(field).to_have_value(page.url)
    assert page.evaluate("getSelection().toString()") == page.url


@pytest.mark.parametrize(
    ("view", "drawings"), [("overview", 4), ("charts", len(load_reports())), ("regions", 8), ("freshness", 0)]
)
def test_export_works_offline(chromium: Browser, page: Page, view: str, drawings: int, tmp_path: Path) -> None:
    """What is shown is saved as one file without scripts, which needs no server."""
    show(page, f"#/{view}?region=eu")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    assert download.value.suggested_filename == f"bi-reports-{view}.html"
    file = tmp_path / "view.html"
    download.value.save_as(file)
    assert "<script" not in file.read_text()
    context = chromium.new_context(offline=True, java_script_enabled=False)
    saved = context.new_page()
    requested: list[str] = []
    saved.on("request", lambda request: requested.append(request.url))
    saved.goto(file.as_uri())
    assert requested == [file.as_uri()]
    expect(saved.locator("h1")).to_have_text(view.title())
    expect(saved.locator("footer")).to_contain_text("Region: eu")
    expect(saved.locator("main svg")).to_have_count(drawings)
    expect(saved.locator("button, input, select")).to_have_count(0)
    context.close()


def test_matrix_starts_at_first_loaded_month(page: Page) -> None:
    """The matrix begins before BI_START_DATE where an earlier month is loaded; each gap says what to trigger."""
    show(page, "#/freshness")
    expect(page.locator("#freshness tbody tr")).to_have_count(14)
    titles = [
        cell.get_attribute("title") or "" for cell in page.locator("#freshness tr").nth(2).locator(".period a").all()
    ]
    months = [title.split(", ")[2][:7] for title in titles]
    assert months[:6] == [f"2026-{month:02}" for month in range(5, 11)]
    assert ["missing" in title for title in titles[:6]] == [False, True, True, False, False, False]
    gap = page.locator(".period a.missing").first
    assert (gap.get_attribute("href") or "").endswith("/dags/bi_monthly")
    page.locator(".gaps summary").click()
    expect(page.locator(".gaps li").first).to_contain_text("jobs: monthly_submissions; regions: eu; period: 2026-06")
    expect(page.locator(".legend li")).to_have_count(3)


def test_page_works_by_keyboard(page: Page) -> None:
    """The first stop skips to the content, and every stop shows where it is."""
    expect(page.locator("#verdict a")).to_be_visible()  # else the keys pass it
    page.locator("body").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#verdict a")).to_be_focused()
    outline = page.locator("#verdict a").evaluate("link => getComputedStyle(link).outlineStyle")
    assert outline == "solid"
    assert page.url.endswith("/bi-reports/")
