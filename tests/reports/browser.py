"""A real browser, logged in to Airflow's UI."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

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
    SCREENSHOTS_DIR.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        page = context.new_page()
        page.goto(services.url)
        page.fill("input[name=username]", airflow.LOGIN)
        page.fill("input[name=password]", services.password)
        page.keyboard.press("Enter")
        expect(page.get_by_text("BI reports").first).to_be_visible(timeout=30_000)
        yield context, page
        browser.close()
