"""Takes the README's picture of the reports page: `python -m dev.page_picture`, once `make up` has loaded all months.

Needs Chromium, like the tests of the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from playwright.sync_api import ViewportSize, expect, sync_playwright

from dev.airflow import LOGIN, UI_PORT
from dev.console import console

ROOT = Path(__file__).parents[1]
_FILE = ROOT / "docs" / "reports.png"
_PASSWORDS = ROOT / ".local" / "stack" / "airflow" / "passwords.json"
_SIZE = ViewportSize(width=1280, height=740)
_WAIT_MS = 60_000


def main() -> int:
    """Write docs/reports.png, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.page_picture", description=__doc__)
    parser.add_argument("--url", default=f"http://127.0.0.1:{UI_PORT}", help="the address that `make up` printed")
    url: str = parser.parse_args().url
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        console.print("There is no Chromium. Hint: apt-get install chromium.", style="red")
        return 1
    password = json.loads(_PASSWORDS.read_text())[LOGIN]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=_SIZE)
        page.set_default_timeout(_WAIT_MS)
        page.goto(url)
        page.fill("input[name=username]", LOGIN)
        page.fill("input[name=password]", password)
        page.keyboard.press("Enter")
        page.get_by_text("BI reports").first.click()
        expect(page.frame_locator("iframe").get_by_role("heading").first).to_be_visible(timeout=_WAIT_MS)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=_FILE)
        browser.close()
    console.print(f"Written to {_FILE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
