"""A real browser, also logged in to Airflow's UI."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect, sync_playwright

from bi_ops.reports.definitions import load_reports
from dev import airflow
from dev.airflow import AirflowServices
from tests.conftest import ROOT

SCREENSHOTS_DIR = ROOT / "dist" / "screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here, and only root may install it: apt-get install chromium"
)


@contextmanager
def log_in(services: AirflowServices) -> Iterator[tuple[BrowserContext, Page]]:
    """Open a browser of 1280 px width, log in, and yield it with its tab on Airflow's home page."""
    with launch_chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        page = context.new_page()
        page.goto(services.url)
        page.fill("input[name=username]", airflow.LOGIN)
        page.fill("input[name=password]", services.password)
        page.keyboard.press("Enter")
        expect(page.get_by_text("BI reports").first).to_be_visible(timeout=30_000)
        yield context, page


@contextmanager
def launch_chromium() -> Iterator[Browser]:
    """Run a browser until the block ends."""
    SCREENSHOTS_DIR.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def open_page(chromium: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open an address at 1280x800, or with other options.

    At the end, no error may be on the page's console, and no other host may have received a request.
    """
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options}, accept_downloads=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto(url)
    yield page
    context.close()
    assert problems == []
    assert hosts - {""} == {urlsplit(url).netloc}  # blob and data URLs have no host


def draw_all_charts(page: Page | FrameLocator) -> None:
    """Scroll through the charts, which are drawn as they come into view, and back to the top."""
    for report in load_reports():
        figure = page.locator(f"#{report.name}")
        figure.scroll_into_view_if_needed()
        expect(figure.locator(".chart svg")).to_have_count(1, timeout=30_000)
    page.locator("#title").scroll_into_view_if_needed()


def choose(page: Page, label: str, value: str) -> None:
    """Select one value of a filter."""
    container = page.locator(".multiselect", has=page.get_by_role("group", name=label, include_hidden=True))
    container.locator("button").click()
    container.get_by_role("checkbox", name=value, exact=True).check()
    page.keyboard.press("Escape")
