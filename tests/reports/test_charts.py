"""Tests the charts and filters in a real browser, on data with gaps and long names, without Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from bi_ops.mongo.store import Store
from bi_ops.reports.definitions import load_reports
from bi_ops.reports.export import export_dashboard
from bi_ops.settings import Settings
from tests.load_helpers import wait_until
from tests.reports.browser import NEEDS_CHROMIUM, SCREENSHOTS_DIR, choose, open_page
from tests.reports.conftest import SETTINGS
from tests.reports.firefox import NEEDS_FIREFOX, running_firefox
from tests.reports.page_data import INSTITUTIONS, LATEST, PARTIAL_PERIODS, QUIET_INSTITUTION

pytestmark = NEEDS_CHROMIUM
VISIBLE_TEXT = "text:not([opacity='0'])"
"""Vega keeps a label that would overlap another, without opacity."""
BARS = "g.mark-rect.role-mark path"
MARKS = "svg g.mark-rect.role-mark path, svg g.mark-symbol.role-mark path"
CONTRASTS = """
nodes => {
  const luminance = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3)
      .map((value) => value / 255).map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const card = luminance(getComputedStyle(document.querySelector("figure")).backgroundColor);
  return nodes.map((node) => {
    const { fill, stroke } = getComputedStyle(node);
    const values = [fill, stroke].filter((colour) => colour.startsWith("rgb(")).map(luminance);
    return Math.max(...values.map((value) => (Math.max(value, card) + 0.05) / (Math.min(value, card) + 0.05)));
  });
}
"""
"""The contrast (WCAG) of each node's colour with the card behind it."""


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    """The view of charts in a window that shows all of them."""
    with open_charts(chromium, url) as page:
        yield page


@contextmanager
def open_charts(chromium: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open the view of charts in a window that shows all of them, and wait until every chart is drawn."""
    with open_page(chromium, f"{url}#/charts", viewport={"width": 1280, "height": 6000}, **options) as page:
        expect(page.locator("figure svg")).to_have_count(len(load_reports()), timeout=30_000)
        yield page


def test_tooltip_is_beside_pointer(page: Page) -> None:
    """However far the page is scrolled, a chart's tooltip is beside the pointer and in the window."""
    page.set_viewport_size({"width": 1280, "height": 800})
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


def test_missing_months_are_gaps(page: Page) -> None:
    """A month that no region has is on the axis without a mark, and no line is drawn across it."""
    figure = page.locator("#submissions_by_region")
    labels = figure.locator("g.role-axis-label text").all_text_contents()
    months = [label[:7] for label in labels if label.startswith("2026-")]
    assert months == ["2026-05", "2026-06", "2026-07", "2026-08", "2026-09", "2026-10"]
    [eu, _] = [path.get_attribute("d") or "" for path in figure.locator("g.mark-line path").all()]
    assert eu.count("M") == 2, "2026-05 alone, then 2026-08 to 2026-10"
    bars = page.locator("#submissions_by_form_type g.mark-rect.role-mark path").all()
    lefts = sorted({round(box["x"]) for bar in bars if (box := bar.bounding_box()) and box["height"]})
    assert len(lefts) == 4
    assert lefts[1] - lefts[0] > 2.5 * (lefts[2] - lefts[1])


def test_partial_month_is_marked(page: Page) -> None:
    """A month that one region lacks is marked in the axis, the marks, the note and the table."""
    figure = page.locator("#submissions_by_form_type")
    labels = figure.locator("g.role-axis-label text").all_text_contents()
    assert [label for label in labels if label.endswith("*")] == ["2026-05 *", "2026-10 *"]
    expect(figure.locator(".note")).to_contain_text("2026-10 without uk")
    assert figure.locator("g.mark-rect.role-mark path[opacity='0.45']").count() == 6
    figure.locator("[data-action=table]").click()
    expect(figure.locator("tbody tr", has_text="2026-10").first).to_contain_text("partial: without uk")
    expect(figure.locator("tbody tr", has_text="2026-09").first).not_to_contain_text("partial")
    choose(page, "Region", "eu")
    expect(figure.locator(".note")).to_be_hidden()


def test_every_chart_marks_partial_periods(page: Page) -> None:
    """Each chart of a periodic collection names the periods that a region lacks; by month or quarter, it marks them."""
    marked = []
    for report in load_reports():
        partial = PARTIAL_PERIODS.get(report.collection, {})
        if report.periods == "latest":
            partial = {period: region for period, region in partial.items() if period == LATEST[report.collection]}
        figure = page.locator(f"#{report.name}")
        note = figure.locator(".note").text_content() or ""
        assert [period for period in partial if f"{period} without {partial[period]}" in note] == [*partial], (
            report.name
        )
        assert ("* Partial" in note) == bool(partial), report.name
        names = {"month", "quarter"} & {column.name for column in report.columns}
        labels = figure.locator("g.role-axis-label text").all_text_contents()
        stars = [label.removesuffix(" *") for label in labels if label.endswith(" *")]
        assert stars == ([*partial] if names else []), report.name
        cells = figure.locator("tbody td", has_text="(partial: without ").all_text_contents()
        assert {cell[:7] for cell in cells} == (set(partial) if names else set()), report.name
        marked += [report.name] if names and partial else []
    assert len(marked) == 9


def test_colours_do_not_change_with_filter(page: Page) -> None:
    """A region and a form type keep their colour when only one of them is selected."""
    before = legend_colours(page, "submissions_by_region"), legend_colours(page, "submissions_by_form_type")
    choose(page, "Region", "uk")
    choose(page, "Form type", "survey")
    expect(page.locator("#submissions_by_form_type .role-legend-label text")).to_have_text(["survey"])
    assert legend_colours(page, "submissions_by_region") == {"uk": before[0]["uk"]}
    assert legend_colours(page, "submissions_by_form_type") == {"survey": before[1]["survey"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chart_text_is_readable(chromium: Browser, url: str, scheme: str) -> None:
    """Every text and every legend symbol of a chart contrasts with the card."""
    with open_charts(chromium, url, color_scheme=scheme) as page:
        page.screenshot(path=SCREENSHOTS_DIR / f"charts_{scheme}.png", full_page=True)
        for selector, minimum in (("text", 4.5), (".role-legend-symbol path", 2)):
            contrasts = page.locator(f"figure svg {selector}").evaluate_all(CONTRASTS)
            assert contrasts
            assert min(contrasts) >= minimum


def test_names_differ_and_do_not_collide(page: Page) -> None:
    """Labels of one axis differ, also of names with equal beginnings, and do not overlap."""
    for axis in page.locator("figure g.role-axis-label").all():
        labels = axis.locator(VISIBLE_TEXT)
        texts = labels.all_text_contents()
        assert len(set(texts)) == len(texts)
        boxes = [box for label in labels.all() if (box := label.bounding_box())]
        for index, one in enumerate(boxes):
            for other in boxes[index + 1 :]:
                assert not overlap(one, other), texts
    texts = page.locator("#top_movers g.role-axis-label text").all_text_contents()
    names = [text for text in texts if "Hôpital" in text]
    assert len(names) == 2
    assert any("North" in name for name in names)


def test_single_bar_stays_slim(page: Page) -> None:
    """One bar alone does not fill its chart."""
    choose(page, "Institution", QUIET_INSTITUTION)
    page.get_by_label("From", exact=True).select_option("2026-09")
    expect(page.locator("#platform_mix g.role-axis-label").first.locator("text")).to_have_text(["2026-09"])
    expect(page.locator(f"#submissions_by_institution {BARS}")).to_have_count(1)
    page.wait_for_load_state("networkidle")
    for report in ("platform_mix", "submissions_by_institution"):
        boxes = page.locator(f"#{report} {BARS}").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect())")
        assert boxes
        assert all(min(box["width"], box["height"]) <= 48 for box in boxes)


def test_top_users_of_one_institution(page: Page) -> None:
    """Bars carry names; a hospital shows its own people among the ten, and says so if there are none."""
    figure = page.locator("#top_users")
    expect(figure.locator("g.role-axis-label text", has_text="Person 1 of eu").first).to_be_visible()
    choose(page, "Institution", "Royal Infirmary")
    expect(figure.locator("g.role-axis-label text", has_text="Person 9 of uk").first).to_be_visible()
    page.get_by_role("button", name="Reset").click()
    choose(page, "Institution", QUIET_INSTITUTION)
    expect(figure.locator(".chart")).to_contain_text("None of the ten most active people")


def test_filters_work_by_keyboard(page: Page) -> None:
    """A value is found and chosen by keyboard alone, and Escape returns to the button."""
    button = page.locator(".multiselect[data-name=institution] button")
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.type("cottage")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    expect(button).to_have_text(QUIET_INSTITUTION)
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(
        page.locator("#submissions_by_institution g.role-axis-label text", has_text=QUIET_INSTITUTION)
    ).to_be_visible()


def test_csv_has_all_rows(page: Page) -> None:
    """The CSV has every institution, where the chart and its table have the first fifteen."""
    figure = page.locator("#submissions_by_institution")
    expect(figure.locator("tbody tr")).to_have_count(15)
    with page.expect_download() as download:
        figure.locator("[data-action=csv]").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("\ufeff")
    assert len(lines) == 1 + sum(map(len, INSTITUTIONS.values()))


def test_images_say_what_they_show(page: Page) -> None:
    """SVG and PNG carry title, period, filters and date; an empty chart says that there is none."""
    choose(page, "Region", "uk")
    figure = page.locator("#submissions_by_region")
    expect(figure.locator(".role-legend-label text")).to_have_text(["uk"])
    with page.expect_download() as download:
        figure.locator("[data-action=svg]").click()
    text = Path(download.value.path()).read_text()
    for part in ("Monthly submissions by region", "Period: 20", "Region: uk", "Institution: all", "Saved: 20"):
        assert part in text, part
    page.get_by_label("From", exact=True).select_option("")
    page.get_by_label("To", exact=True).select_option("2025-12")
    expect(figure.locator(".chart")).to_have_text("Nothing to show for these filters.")
    figure.locator("[data-action=png]").click()
    expect(figure.locator(".note")).to_contain_text("the chart is empty")


def test_exported_page_cuts_nothing(chromium: Browser, served: tuple[Store, str], tmp_path: Path) -> None:
    """In the exported page every text of a chart is inside its figure, and the freshness table is whole."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.goto(export_dashboard(served[0], Settings.from_env(SETTINGS), tmp_path).as_uri())
    cut = page.locator("figure svg text").evaluate_all(
        """texts => texts.filter((text) => {
          const [box, figure] = [text.getBoundingClientRect(), text.closest("figure").getBoundingClientRect()];
          return box.left < figure.left || box.right > figure.right;
        }).map((text) => text.textContent)"""
    )
    assert cut == []
    table = page.locator(".scroll", has=page.locator("table.freshness"))
    assert table.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.close()


def legend_colours(page: Page, report: str) -> dict[str, str | None]:
    """The colour of each entry in a chart's legend."""
    figure = page.locator(f"#{report}")
    labels = figure.locator(".role-legend-label text").all_text_contents()
    symbols = figure.locator(".role-legend-symbol path").all()
    colours = [
        next(c for n in ("fill", "stroke") if (c := symbol.get_attribute(n)) and c.startswith("#"))
        for symbol in symbols
    ]
    return dict(zip(labels, colours, strict=True))


def overlap(one: Any, other: Any) -> bool:
    """Whether two boxes share more than their edges."""
    return bool(
        one["x"] + one["width"] > other["x"] + 1
        and other["x"] + other["width"] > one["x"] + 1
        and one["y"] + one["height"] > other["y"] + 2
        and other["y"] + other["height"] > one["y"] + 2
    )


@NEEDS_FIREFOX
def test_filters_work_in_firefox(url: str, tmp_path: Path) -> None:
    """In Firefox, which has no month input and no usable list of several values, charts and filters work as well."""
    with running_firefox(tmp_path) as firefox:
        firefox.open(f"{url}#/charts")
        drawn = "document.querySelectorAll('#submissions_by_region svg').length"
        wait_until(lambda: firefox.evaluate(drawn) == 1)
        choose_uk = """(() => {
          document.querySelector('.multiselect[data-name=region] button').click();
          const box = document.querySelector('.multiselect[data-name=region] input[value=uk]');
          const visible = box.checkVisibility();
          box.click();
          return visible;
        })()"""
        assert firefox.evaluate(choose_uk)
        legend = "document.querySelector('#submissions_by_region .role-legend-label').textContent"
        wait_until(lambda: firefox.evaluate(legend) == "uk")
        months = "[...document.querySelectorAll('[name=from_month] option')].map(option => option.value)"
        assert "2026-10" in firefox.evaluate(months)
        assert firefox.evaluate("document.querySelectorAll('input[type=month], select[multiple]').length") == 0
