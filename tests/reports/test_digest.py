"""Tests the digest of a month: when it is due, its figures, and how it is rendered."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pendulum
import pytest
import vl_convert

from bi_ops.catalog.periods import Cadence, Period
from bi_ops.errors import NoDigestError
from bi_ops.mongo.store import Store
from bi_ops.reports import digest_rendering
from bi_ops.reports.digest import Digest, load_digest
from bi_ops.reports.digest_rendering import MAX_TEXT, digest_html, digest_images, digest_text, export_digest
from bi_ops.reports.digest_state import DigestMonth, DigestState, due_month, read_state, requested_month, write_state
from bi_ops.settings import Settings
from tests.load_helpers import publish_empty

SETTINGS = Settings(regions="eu,uk", start_date="2026-08-01")
NOW = pendulum.datetime(2026, 11, 3, 9)
OCTOBER = DigestMonth("2026-10", ("eu", "uk"))
MAIL_LIMIT = 32_000
"""The characters of HTML that each service of mails takes."""


class _Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - as in the base class
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def digest(populated_store: Store) -> Digest:
    return load_digest(populated_store, SETTINGS, OCTOBER, NOW, "https://airflow.example/bi-reports/#overview")


def month(name: str) -> Period:
    return Period.parse(name, Cadence.MONTHLY, "UTC")


def test_digest_figures_are_those_of_its_month(populated_store: Store, digest: Digest) -> None:
    """The figures cover the month and regions that the digest names, whatever is newer."""
    submissions = digest.figures.tiles[0]
    rows = list(populated_store.live["monthly_submissions"].find({}))
    for name in ("2026-10", "2026-09"):
        for regions in (("eu", "uk"), ("uk",)):
            earlier = load_digest(populated_store, SETTINGS, DigestMonth(name, regions), NOW)
            expected = sum(row["submissions"] for row in rows if row["period"] == name and row["region"] in regions)
            assert earlier.figures.tiles[0].value == expected > 0
            assert earlier.figures.month == name
    assert submissions.change_month
    assert digest.title == "MEG usage in October 2026"


def test_digest_html_suits_mail(digest: Digest) -> None:
    """The HTML is short, and has neither scripts nor style sheets nor anything from elsewhere; names are escaped."""
    page = digest_html(replace(digest, month=replace(OCTOBER, regions=("eu",), lacking=("uk",))))
    parsed = _Tags(page)
    assert parsed.tags <= {"html", "head", "meta", "title", "body", "table", "tr", "td", "th", "h1", "h2", "p"} | {
        "a",
        "br",
        "span",
        "strong",
    }
    assert re.findall(r"https?://[^\"]*", page) == ["https://airflow.example/bi-reports/#overview"]
    assert len(page) < MAIL_LIMIT
    for tile in digest.figures.tiles:
        assert tile.title in parsed.text
    assert f"{digest.figures.tiles[0].value:,}" in parsed.text
    assert "without uk" in parsed.text
    assert "Not published yet, and not in these figures: uk." in parsed.text
    assert digest.freshness in parsed.text
    for client in (*digest.figures.growing, *digest.figures.fading, *digest.figures.attention):
        assert client.name in parsed.text


def test_digest_text_fits_chat_services(digest: Digest) -> None:
    """The text has the figures and ends with freshness and address; long names make it lose whole lines only."""
    text = digest_text(digest)
    assert text.startswith(f"Submissions: {digest.figures.tiles[0].value:,} (")
    assert text.endswith(f"{digest.freshness}\n{digest.page_url}")
    assert all(f"- {client.name} {client.region}: " in text for client in digest.figures.growing[:3])
    long = [replace(client, name="Hospital " * 100) for client in digest.figures.growing]
    reasons = replace(long[0].attention, reasons=["submissions down 62 % on last quarter"] * 10)
    figures = replace(digest.figures, growing=long, attention=[replace(client, attention=reasons) for client in long])
    shortened = digest_text(replace(digest, figures=figures))
    assert 1_000 < len(shortened) <= MAX_TEXT
    assert shortened.endswith(f"{digest.freshness}\n{digest.page_url}")
    assert re.search(r"- Hospital .{40,50}\N{HORIZONTAL ELLIPSIS} (eu|uk): ", shortened)


def test_digest_images_are_pngs(digest: Digest) -> None:
    """There is a PNG of each chart, but of none that has no value."""
    images = digest_images(digest)
    assert set(images) == {"submissions.png", "sessions.png", "clients.png"}
    assert all(content.startswith(b"\x89PNG") for content in images.values())
    partial = [{"period": "2026-09", "value": 5, "partial": ["uk"]}, {"period": "2026-10", "value": 0, "partial": []}]
    tiles = [replace(digest.figures.tiles[0], series=partial), replace(digest.figures.tiles[1], series=[])]
    few = replace(digest, figures=replace(digest.figures, tiles=tiles, growing=[], fading=[]))
    assert set(digest_images(few)) == {"submissions.png"}
    chart = digest_rendering._months_chart(tiles[0])
    assert chart
    svg = vl_convert.vegalite_to_svg(chart)
    assert ">2026-09 *<" in svg
    assert ">2026-10<" in svg
    assert ">* without some of the regions<" in svg


def test_digest_is_exported(populated_store: Store, tmp_path: Path) -> None:
    """The preview of `make report` is the newest complete month, with the charts beside it."""
    assert "October 2026" in export_digest(populated_store, SETTINGS, tmp_path).read_text()
    names = {"digest.html", *(f"digest-{name}.png" for name in ("submissions", "sessions", "clients"))}
    assert {path.name for path in tmp_path.iterdir()} == names
    with pytest.raises(NoDigestError):
        export_digest(populated_store, Settings(regions="eu,uk", start_date="2026-11-01"), tmp_path)
    assert not (tmp_path / "digest.html").exists()


def test_digest_names_no_people(populated_store: Store, digest: Digest) -> None:
    """No name of a person is in any part of the digest."""
    people = populated_store.live["top_users"].distinct("user_name")
    assert people
    parts = digest_html(digest) + digest_text(digest) + str(asdict(digest.figures))
    assert [name for name in people if name in parts] == []


def test_digest_without_other_collections(store: Store) -> None:
    """A digest of a month whose other collections were never loaded has dashes, and no lists."""
    empty = load_digest(store, SETTINGS, OCTOBER, NOW)
    assert "High security risk: \N{EN DASH}" in digest_text(empty)
    assert "Growing" not in digest_html(empty)
    assert digest_images(empty) == {}


def test_month_is_due_when_every_region_has_it(store: Store) -> None:
    """The month that ended last is due once all jobs of all regions have published it, and until it was sent."""
    for region in SETTINGS.regions:
        for job in ("monthly_submissions", "monthly_sessions", "top_users"):
            with pytest.raises(NoDigestError, match=f"missing: .*{job} {region}"):
                due_month(store, SETTINGS, NOW, {})
            publish_empty(store, job, region)
    assert due_month(store, SETTINGS, NOW, {}) == OCTOBER
    assert due_month(store, SETTINGS, NOW.add(days=20), {}) == OCTOBER
    write_state(store, DigestState("2026-10", None, "run", (0,)))
    assert due_month(store, SETTINGS, NOW, {}) == OCTOBER
    write_state(store, DigestState("2026-10", NOW, "run", (0, 1)))
    assert read_state(store, "2026-10") == DigestState("2026-10", NOW, "run", (0, 1))
    with pytest.raises(NoDigestError, match="was sent"):
        due_month(store, SETTINGS, NOW, {})
    with pytest.raises(NoDigestError, match=r"digest of 2026-11.*missing: monthly_submissions eu"):
        due_month(store, SETTINGS, NOW.add(months=1), {})


def test_month_before_region_start_is_not_awaited(store: Store) -> None:
    """A region that began to use MEG after the month keeps no digest back, and is not named as lacking."""
    for job in ("monthly_submissions", "monthly_sessions", "top_users"):
        publish_empty(store, job, "eu")
    starts = {"uk": pendulum.datetime(2026, 11, 2), "eu": None}
    assert due_month(store, SETTINGS, NOW, starts) == DigestMonth("2026-10", ("eu",))
    assert requested_month(store, SETTINGS, month("2026-10"), NOW, starts) == DigestMonth("2026-10", ("eu",))


def test_requested_month_may_lack_regions(store: Store) -> None:
    """By hand, a month is sent without the regions that lack it; without a period, the newest complete one."""
    publish_empty(store, "monthly_submissions", "eu")
    publish_empty(store, "monthly_submissions", "uk")
    publish_empty(store, "monthly_sessions", "eu")
    lacking = DigestMonth("2026-10", ("eu",), ("uk",))
    assert requested_month(store, SETTINGS, month("2026-10"), NOW, {}) == lacking
    with pytest.raises(NoDigestError, match="no region has published"):
        requested_month(store, SETTINGS, month("2026-09"), NOW, {})
    with pytest.raises(NoDigestError, match="no month is published by every region"):
        requested_month(store, SETTINGS, None, NOW, {})
    for region in SETTINGS.regions:
        publish_empty(store, "monthly_submissions", region, "2026-08")
        publish_empty(store, "monthly_sessions", region, "2026-08")
        publish_empty(store, "top_users", region, "2026-08")
    assert requested_month(store, SETTINGS, None, NOW, {}) == DigestMonth("2026-08", ("eu", "uk"))


@pytest.mark.parametrize(
    ("state", "run_id", "by_hand", "expected"),
    [
        (DigestState("2026-10", None, "a", (0,)), "a", True, (0,)),
        (DigestState("2026-10", None, "a", (0,)), "b", True, ()),
        (DigestState("2026-10", None, "a", (0,)), "b", False, (0,)),
        (DigestState("2026-10", NOW, "a", (0, 1)), "a", True, ()),
        (DigestState("2026-10"), "a", False, ()),
    ],
)
def test_services_delivered_before(
    state: DigestState, run_id: str, expected: tuple[int, ...], *, by_hand: bool
) -> None:
    """No service gets a digest twice unless a person triggers that."""
    assert state.delivered_before(run_id, by_hand=by_hand) == expected
