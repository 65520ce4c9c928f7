"""Tests the reports over mixed time zones, removed regions and publishes that are in progress."""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bi_ops.catalog.jobs import JOBS
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.mongo.store import LEDGER_COLLECTION, Store
from bi_ops.reports.atlas import build_dashboard
from bi_ops.reports.definitions import get_report
from bi_ops.reports.export import export_dashboard
from bi_ops.reports.filters import Filters
from bi_ops.reports.freshness import freshness, overview
from bi_ops.reports.published_data_problems import find_ledger_problems, unknown_documents
from bi_ops.reports.report_queries import run_report
from bi_ops.settings import Settings
from tests.meg_factory import utc
from tests.reports.live_rows import insert_live

NOW = utc(2026, 11, 2, 12)
ZONES = {"eu": "UTC", "uk": "Europe/Berlin", "us": "America/New_York"}
"""The time zone that each region's periods were cut in."""


def settings(regions: str = "eu,uk,us", zone: str = "UTC") -> Settings:
    return Settings.from_env({"MEG_REGIONS": regions, "BI_TIMEZONE": zone, "BI_START_DATE": "2026-08-01"})


def insert(store: Store, collection: str, **document: Any) -> None:
    insert_live(store.live[collection], document)


def publish_row(store: Store, job: str, region: str, period: str, **changes: Any) -> None:
    """A row of the ledger as publish writes it."""
    end = changes.pop("as_of", utc(2026, 11, 1))
    row = {
        "_id": f"{job}:{region}:{period}" if period else f"{job}:{region}",
        "job": job,
        "region": region,
        "period": period or None,
        "as_of": end,
        "run_id": f"run of {period}",
        "documents": 10,
        "started_at": NOW,
        "published_at": NOW,
        **changes,
    }
    store.live[LEDGER_COLLECTION].insert_one(row)


@pytest.fixture
def mixed_store(store: Store) -> Store:
    """Three months and three quarters of three regions, each in its own time zone."""
    for region, zone in ZONES.items():
        for name in ("2026-08", "2026-09", "2026-10"):
            insert(
                store,
                "monthly_submissions",
                _id=f"{region}:{name}:1",
                period=name,
                period_start=Period.parse(name, Cadence.MONTHLY, zone).start,
                region=region,
                institution_id=1,
                institution_name=region,
                form_id=1,
                form_type="audit",
                submissions=7,
                previous_submissions=3,
            )
        for name in ("2026-Q1", "2026-Q2", "2026-Q3"):
            insert(
                store,
                "quarterly_form_churn",
                _id=f"{region}:{name}:1",
                period=name,
                period_start=Period.parse(name, Cadence.QUARTERLY, zone).start,
                region=region,
                form_type="audit",
                status="dormant",
                is_archived=False,
                submissions=0,
            )
    return store


def test_latest_period_mixed_zones_is_whole(mixed_store: Store) -> None:
    """The latest period has one name in all regions, and includes the rows of each."""
    latest = run_report(mixed_store.live, get_report("top_movers"), Filters())
    assert (latest.period, {row["region"] for row in latest.rows}) == ("2026-10", set(ZONES))
    [forms] = run_report(mixed_store.live, get_report("unused_forms"), Filters()).rows
    assert forms["forms"] == len(ZONES)


@pytest.mark.parametrize("month", ["2026-08", "2026-09", "2026-10"])
def test_month_filter_mixed_zones_has_that_month(mixed_store: Store, month: str) -> None:
    """A filter selects its month in every region and no adjacent one; a month is one point."""
    rows = run_report(
        mixed_store.live, get_report("submissions_by_region"), Filters(from_month=month, to_month=month)
    ).rows
    assert sorted((row["month"], row["region"]) for row in rows) == [(month, region) for region in sorted(ZONES)]
    quarter = run_report(mixed_store.live, get_report("retention"), Filters(from_month=month, to_month=month)).rows
    assert {row["quarter"] for row in quarter} <= {"2026-Q3"}


def test_atlas_latest_mixed_zones_has_all_regions(mixed_store: Store) -> None:
    """The Atlas dashboard's own query for the latest period keeps every region."""
    title = get_report("unused_forms").title
    [item] = [item for item in json.loads(build_dashboard("bi"))["items"].values() if item["title"] == title]
    rows = list(mixed_store.live["quarterly_form_churn"].aggregate(json.loads(item["query"])))
    assert {(row["region"], row["period"]) for row in rows} == {(region, "2026-Q3") for region in ZONES}


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Auckland"])
def test_overdue_ignores_time_zone(store: Store, zone: str) -> None:
    """A published month is not overdue because it was cut in another time zone."""
    for job in ("monthly_submissions", "top_users"):
        period = "2026-10" if job == "monthly_submissions" else ""
        end: datetime = Period.parse("2026-10", Cadence.MONTHLY, "UTC").end
        publish_row(store, job, "eu", period, as_of=end, timezone="UTC")
    by_job = {status.job: status for status in freshness(store, settings("eu", zone), NOW)}
    assert not by_job["monthly_submissions"].overdue
    assert not by_job["top_users"].overdue
    later = freshness(store, settings("eu", zone), utc(2026, 12, 4))
    assert all(status.overdue for status in later)


def test_quarterly_row_without_period_is_missing(store: Store) -> None:
    """A row of the ledger that names no quarter, which no publish writes, counts as a missing one."""
    publish_row(store, "quarterly_form_churn", "eu", "")
    current = Settings.from_env({"MEG_REGIONS": "eu", "BI_START_DATE": "2026-01-01"})
    [churn] = [status for status in freshness(store, current, NOW) if status.job == "quarterly_form_churn"]
    assert churn.overdue


def test_removed_region_marks_no_new_month(mixed_store: Store, tmp_path: Path) -> None:
    """A region that was removed from the settings keeps its figures, and is lacking only before its last month."""
    loaded = {"eu": ("08", "09", "10"), "uk": ("07", "08", "09"), "us": ("07", "09")}
    for region, months in loaded.items():
        for month in months:
            publish_row(mixed_store, "monthly_submissions", region, f"2026-{month}", timezone="UTC")
    report, before = get_report("submissions_by_region"), {"2026-07": ["eu"], "2026-08": ["us"]}
    removed = run_report(mixed_store.live, report, Filters(), settings("eu,uk").regions)
    assert {row["region"] for row in removed.rows} == set(ZONES)
    assert removed.coverage.partial == {**before, "2026-10": ["uk"]}
    late = run_report(mixed_store.live, report, Filters(), settings("eu,uk,us").regions)
    assert late.coverage.partial == {**before, "2026-10": ["uk", "us"]}
    page = export_dashboard(mixed_store, settings("eu,uk"), tmp_path).read_text()
    assert "2026-10 without uk." in page
    assert "<td>2026-10 (partial: without uk)</td>" in page


def test_mixed_zones_of_one_job_are_reported(store: Store) -> None:
    """Periods in another zone than that of the settings are reported, with the command that reloads one."""
    publish_row(store, "monthly_submissions", "eu", "2026-08")  # of an earlier version, which kept no time zone
    publish_row(store, "monthly_submissions", "eu", "2026-09", timezone="UTC")
    publish_row(store, "monthly_submissions", "eu", "2026-10", timezone="Europe/Berlin")
    publish_row(store, "monthly_sessions", "eu", "2026-10", timezone="Europe/Berlin")
    publish_row(store, "institutions", "eu", "", timezone="UTC")
    [problem] = find_ledger_problems(store.live, settings("eu", "Europe/Berlin"), NOW)
    assert (problem.kind, problem.subject) == ("timezone", "monthly_submissions eu")
    assert "UTC: 2026-09" in problem.message
    assert "2026-08" not in problem.message
    *command, conf = shlex.split(problem.command)
    assert command == ["airflow", "dags", "trigger", "bi_monthly", "--conf"]
    assert json.loads(conf) == {"period": "2026-09", "jobs": ["monthly_submissions"], "regions": ["eu"]}
    [sessions, submissions] = find_ledger_problems(store.live, settings("eu", "Asia/Tokyo"), NOW)
    assert (sessions.subject, submissions.subject) == ("monthly_sessions eu", "monthly_submissions eu")


def test_renamed_region_is_reported_with_removal(mixed_store: Store) -> None:
    """A region that the settings do not name is reported, by its documents or its ledger rows alone."""
    publish_row(mixed_store, "forms", "au", "")
    insert(mixed_store, "forms", _id="eu_1:7", region="eu_1")
    insert(mixed_store, "forms", _id="a foreign id", region="elsewhere")
    problems = find_ledger_problems(mixed_store.live, settings("eu_1,uk,us"), NOW)
    assert [(problem.kind, problem.subject) for problem in problems] == [
        ("region", "region au"),
        ("region", "region eu"),
    ]
    assert "6 documents" in problems[1].message
    assert find_ledger_problems(mixed_store.live, settings("au,eu,eu_1,uk,us"), NOW) == []
    program, _, _, script = shlex.split(problems[1].command)
    assert program == "mongosh"
    assert f'getSiblingDB("{mixed_store.live.name}")' in script
    assert '{region: "eu"}' in script
    names = json.loads(script[script.index("[") : script.index("]") + 1])
    assert names == [*(job.name for job in JOBS), LEDGER_COLLECTION]


@pytest.mark.parametrize("region", ["""eu"})'; rm -rf $HOME #""", "eu\\", "e\nu", "</pre><script>"])
def test_hostile_region_command_is_escaped(store: Store, region: str) -> None:
    """The command removes that region only, for any characters in the region's name."""
    publish_row(store, "forms", region, "")
    [problem] = find_ledger_problems(store.live, settings(), NOW)
    script = shlex.split(problem.command)[3]
    start = script.index("{region: ") + len("{region: ")
    assert json.loads(script[start : script.rindex("})")]) == region


def test_unfinished_publish_is_shown(store: Store, tmp_path: Path) -> None:
    """A slice that is being replaced shows its progress; one never published before counts as not published."""
    state = {"load_id": "a", "run_id": "run 1", "read_at": NOW, "documents": 100, "of": 300}
    publish_row(store, "monthly_submissions", "eu", "2026-09", publishing=None)
    publish_row(store, "monthly_submissions", "eu", "2026-10", publishing=state, published_at=None, documents=100)
    publish_row(store, "institutions", "eu", "", publishing=state)
    publish_row(store, "forms", "eu", "", publishing=state, published_at=None)
    page_data = overview(store, settings("eu"), NOW)
    jobs = {job.job: job for job in page_data.jobs}
    months = jobs["monthly_submissions"]
    assert months.as_of == "2026-09"
    assert [(period.period, period.documents, period.publishing is not None) for period in months.periods] == [
        ("2026-08", None, False),
        ("2026-09", 10, False),
        ("2026-10", None, True),
    ]
    assert jobs["institutions"].as_of
    assert jobs["forms"].as_of == ""
    for name in ("institutions", "forms"):
        progress = jobs[name].publishing
        assert progress is not None
        assert (progress.documents, progress.total) == (100, 300)
    assert [(problem.kind, problem.subject) for problem in page_data.problems] == [
        ("publishing", "monthly_submissions eu 2026-10"),
        ("publishing", "institutions eu"),
        ("publishing", "forms eu"),
    ]
    page = export_dashboard(store, settings("eu"), tmp_path).read_text()
    assert "100 of 300 documents are new" in page


@pytest.mark.parametrize("field", ["as_of", "read_at"])
def test_future_instant_is_shown(store: Store, field: str) -> None:
    """A publish from a clock that is ahead is reported, since it blocks later loads; a few seconds are not."""
    publish_row(store, "forms", "eu", "", **{"as_of": NOW, field: NOW + timedelta(days=1)})
    publish_row(store, "institutions", "eu", "", **{"as_of": NOW, field: NOW + timedelta(seconds=5)})
    [problem] = overview(store, settings("eu"), NOW).problems
    assert (problem.kind, problem.subject) == ("future", "forms eu")
    assert shlex.split(problem.command)[:4] == ["airflow", "dags", "trigger", "bi_weekly"]
    assert overview(store, settings("eu"), NOW + timedelta(days=2)).problems == []


def test_snapshot_shows_problems(store: Store, tmp_path: Path) -> None:
    """The exported page carries the warnings, with their commands as text."""
    publish_row(store, "forms", "<b>old</b>", "")
    page = export_dashboard(store, settings(), tmp_path).read_text()
    assert "<b>old" not in page
    assert "MEG_REGIONS does not list this region" in page
    assert "deleteMany" in page


def test_unknown_regions_are_found_by_index(mixed_store: Store) -> None:
    """The search for unknown regions reads `_id`s from the index only, for any number of documents."""
    query = unknown_documents(settings())
    plan = mixed_store.live.command(
        "explain",
        {"aggregate": "monthly_submissions", "pipeline": query.pipeline[:2], "cursor": {}},
        verbosity="executionStats",
    )
    text = json.dumps(plan, default=str)
    assert "COLLSCAN" not in text
    assert '"totalDocsExamined": 0' in text
