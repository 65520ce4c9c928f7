"""Tests the charts and filters in a real browser, on data with gaps and long names, without Airflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from bi_ops.mongo.store import Store
from bi_ops.reports.definitions import load_reports
from dev import mongo
from tests.reports.browser import CHROMIUM, NEEDS_CHROMIUM, SCREENSHOTS_DIR
from tests.reports.page_data import INSTITUTIONS, insert_page_data
from tests.reports.page_server import page_server

pytestmark = NEEDS_CHROMIUM
MARKS = "svg g.mark-rect.role-mark path, svg g.mark-symbol.role-mark path"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page's address, on a MongoDB of its own."""
    if os.environ.get(mongo.URL_ENV_VAR):
        pytest.skip("the tests' MongoDB is not of this machine")
    folder = tmp_path_factory.mktemp("charts")
    settings = {"MEG_REGIONS": "eu,uk", "BI_START_DATE": "2026-08-01"}
    with mongo.running(folder, "secret") as server, page_server(folder, server.port, **settings) as address:
        with server.client() as client:
            insert_page_data(Store(client, "bi"))
        yield f"{address}/bi-reports/"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    SCREENSHOTS_DIR.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """The page at 1280x800, with every chart drawn and no error on its console."""
    with_page = open_page(chromium, url)
    yield next(with_page)
    next(with_page, None)


def open_page(chromium: Browser, url: str, **options: Any) -> Iterator[Page]:
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options}, accept_downloads=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    expect(page.locator("figure svg")).to_have_count(len(load_reports()), timeout=30_000)
    yield page
    context.close()
    assert problems == []


def test_tooltip_is_beside_pointer(page: Page) -> None:
    """However far the page is scrolled, a chart's tooltip is beside the pointer and in the window."""
    for report in load_reports():
        box = hover_mark(page, page.locator(f"#{report.name}"))
        tooltip = page.locator("#vg-tooltip-element.visible")
        expect(tooltip).to_be_visible()
        area = tooltip.bounding_box()
        assert area
        gap_x = max(area["x"] - box[0], box[0] - area["x"] - area["width"])
        gap_y = max(area["y"] - box[1], box[1] - area["y"] - area["height"])
        assert max(gap_x, gap_y) < 40, report.name
        assert 0 <= area["y"] <= 800 - area["height"], report.name


def hover_mark(page: Page, figure: Locator) -> tuple[float, float]:
    """Scroll to the figure's first large mark and hover it; returns the pointer's position in the window."""
    page.mouse.move(0, 0)
    marks = figure.locator(MARKS)
    mark = next(mark for mark in marks.all() if (box := mark.bounding_box()) and box["width"] * box["height"] > 9)
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    assert box
    position = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*position)
    return position


def test_strip_starts_at_first_loaded_month(page: Page) -> None:
    """The freshness strip begins before BI_START_DATE where an earlier month is loaded, and lists the gaps."""
    titles = [
        link.get_attribute("title") or "" for link in page.locator("#freshness tr").nth(1).locator(".strip a").all()
    ]
    assert [title[:7] for title in titles[:6]] == [f"2026-{month:02}" for month in range(5, 11)]
    assert ["missing" in title for title in titles[:6]] == [False, True, True, False, False, False]


def test_csv_has_all_rows(page: Page) -> None:
    """The CSV has every institution, where the chart and its table have the first fifteen."""
    figure = page.locator("#submissions_by_institution")
    expect(figure.locator("tbody tr")).to_have_count(15)
    with page.expect_download() as download:
        figure.locator("[data-action=csv]").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("\ufeff")
    assert len(lines) == 1 + sum(map(len, INSTITUTIONS.values()))
