"""Tests the charts of the views of clients and regions in a real browser: partial months, and images."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.reports.browser import NEEDS_CHROMIUM, SCREENSHOTS_DIR, open_page
from tests.reports.client_data import PARTIAL_MONTHS

pytestmark = NEEDS_CHROMIUM
WIDTH = 1440
TITLE_HEIGHT = 120
"""In pixels: two for one of the chart."""
COMPARE_IMAGES = """
async ([hrefs, bandHeight]) => {
  const images = await Promise.all(hrefs.map(async (href) => {
    const image = new Image();
    image.src = href;
    await image.decode();
    return image;
  }));
  const { naturalWidth: width, naturalHeight: height } = images[0];
  const dark = images.map((image) => {
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(image, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    const isDark = (place) => [0, 1, 2].some((channel) => data[4 * place + channel] < 200);
    return Array.from({ length: width * height }, (_, place) => isDark(place));
  });
  const share = (from, to) => {
    let [both, either] = [0, 0];
    for (let place = from * width; place < to * width; place += 1) {
      both += dark[0][place] && dark[1][place];
      either += dark[0][place] || dark[1][place];
    }
    return either ? both / either : 0;
  };
  const ink = dark[0].slice(0, bandHeight * width).filter(Boolean).length;
  return { title: share(0, bandHeight), whole: share(0, height), ink };
}
"""
"""How far two images agree: the share of pixels that are dark in both, in the band of the title and in the whole."""


@pytest.fixture
def page(chromium: Browser, clients_url: str) -> Iterator[Page]:
    """A page of clients that lack some months."""
    with open_page(chromium, clients_url) as page:
        expect(page.locator(".tile")).to_have_count(7, timeout=30_000)
        yield page


def open_chart(page: Page, view: str, name: str) -> Locator:
    """Open a view with all months, and return its chart of this name when it is drawn."""
    page.evaluate("hash => { location.hash = hash; }", f"#/{view}?months=all")
    figure = page.locator(f"#{name}")
    figure.scroll_into_view_if_needed()
    expect(figure.locator(".chart svg")).to_have_count(1, timeout=30_000)
    return figure


def test_partial_months_of_regions_are_marked(page: Page) -> None:
    """A month that one region lacks is marked in the axis, the marks, the note and the table of all regions."""
    figure = open_chart(page, "regions", "growth-all")
    labels = figure.locator("g.role-axis-label text").all_text_contents()
    assert [label.removesuffix(" *") for label in labels if label.endswith("*")] == list(PARTIAL_MONTHS)
    marks = figure.locator(".chart svg g.mark-symbol.role-mark path").all()
    crosses = [mark for mark in marks if "A" not in (mark.get_attribute("d") or "A")]
    assert len(crosses) == 2 * len(PARTIAL_MONTHS)
    figure.screenshot(path=SCREENSHOTS_DIR / "growth_partial.png")
    crosses[0].hover()
    expect(page.locator("#vg-tooltip-element.visible")).to_contain_text("without uk")
    figure.get_by_role("button", name="Table").click()
    months = figure.locator("tbody td:first-child").all_inner_texts()
    expected = [f"{month} (partial: without {region})" for month, region in PARTIAL_MONTHS.items()]
    assert [month for month in months if len(month) > 7] == expected
    own = open_chart(page, "regions", "growth-eu")
    assert not [label for label in own.locator("g.role-axis-label text").all_text_contents() if "*" in label]
    expect(own.locator(".note")).not_to_contain_text("Partial")


@pytest.mark.parametrize(
    ("view", "name", "title"),
    [
        ("clients/eu/3", "client-submissions", "Hôpital Saint-André: submissions"),
        ("regions", "growth-uk", "uk: submissions and sessions"),
        ("regions", "platforms-all", "All regions: platforms"),
    ],
)
def test_view_chart_png_equals_svg(page: Page, view: str, name: str, title: str) -> None:
    """The PNG of a view's chart has the size of its SVG, and shows the same title and marks."""
    figure = open_chart(page, view, name)
    files = {}
    for kind in ("png", "svg"):
        with page.expect_download() as download:
            figure.get_by_role("button", name=kind.upper()).click()
        assert download.value.suggested_filename == f"{name}.{kind}"
        files[kind] = Path(download.value.path()).read_bytes()
    assert files["png"][:8] == b"\x89PNG\r\n\x1a\n"
    assert f">{title}<" in files["svg"].decode()
    blank = page.context.new_page()  # whose policy allows images of any source
    hrefs = {
        kind: f"data:image/{kind.replace('svg', 'svg+xml')};base64,{base64.b64encode(file).decode()}"
        for kind, file in files.items()
    }
    size = blank.evaluate(
        "async (href) => { const i = new Image(); i.src = href; await i.decode(); return [i.width, i.height]; }",
        hrefs["svg"],
    )
    assert size[0] == WIDTH
    assert struct.unpack(">II", files["png"][16:24]) == tuple(size)
    agreement = blank.evaluate(COMPARE_IMAGES, [[hrefs["png"], hrefs["svg"]], TITLE_HEIGHT])
    assert agreement["ink"] > 500, "the title's letters"
    assert agreement["title"] > 0.8
    assert agreement["whole"] > 0.8
    untitled = files["svg"].decode().replace(f">{title}<", "><").encode()
    untitled_href = f"data:image/svg+xml;base64,{base64.b64encode(untitled).decode()}"
    other = blank.evaluate(COMPARE_IMAGES, [[hrefs["png"], untitled_href], TITLE_HEIGHT])
    assert other["title"] < agreement["title"] - 0.1, "the title is part of the PNG"
    blank.close()
