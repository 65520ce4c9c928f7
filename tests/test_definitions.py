"""Every job's SQL against the second implementation of its definition, on demo data that looks like life."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from bi_ops.jobs import JOBS, Job
from bi_ops.source import Meg
from bi_ops.store import Store
from dev import meg as reference
from dev.stack import Databases
from tests.loads import documents_of, load_slice, slice_of
from tests.megs import MegRows, connect_as_reader, raw_tables, utc
from tests.nasty import every_edge
from tests.oracle import Oracle

INSTANTS = (utc(2026, 11, 21), utc(2026, 10, 1), utc(2026, 1, 1), utc(2025, 2, 14, 13, 37))
DEMO = reference.Demo(seed=11, forms=60, until=date(2026, 11, 22))


@pytest.fixture(scope="module")
def demo(servers: Databases) -> Iterator[psycopg.Connection[Any]]:
    reference.seed(servers.postgres, "meg_demo", DEMO)
    with servers.postgres.connect("meg_demo") as connection:
        yield connection


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("at", INSTANTS, ids=str)
def test_demo_data_gives_the_figures_of_the_definition(
    servers: Databases, store: Store, demo: psycopg.Connection[Any], job: Job, at: datetime
) -> None:
    of = slice_of(job.name, at)
    with Meg("eu", connect_as_reader(servers, "meg_demo"), reader="test") as meg:
        load_slice(store, meg, of)
    expected = Oracle(raw_tables(demo)).of(job.name, of.period, of.as_of)
    assert documents_of(store, of) == expected
    assert expected, "demo data says something about every job"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Dublin", "Australia/Sydney"])
def test_every_edge_of_time_falls_on_the_side_of_the_definition(
    store: Store, meg: Meg, rows: MegRows, job: Job, zone: str
) -> None:
    at = utc(2026, 11, 21, 9)
    institution = rows.institution()
    other = rows.institution()
    for edge in every_edge(at, zone):
        # By a user, an auditor, a form and an institution of their own, so that no edge hides behind another.
        user = rows.user(last_login_at=edge, date_joined_at=edge)
        auditor = rows.auditor(institution, user=user, is_admin=True)
        form = rows.form(institution, collects_patient_data=True)
        rows.session(form, edge, auditor_id=auditor)
        rows.session(form, edge + timedelta(hours=13), auditor_id=auditor, ended_at=edge)
        for born, archived in ((edge, None), (utc(2020, 1, 1), edge)):
            rows.form(other, created_at=born, archived_at=archived, collects_patient_data=True)
        rows.institution(created_at=edge)
        rows.add("documents_document", institution_id=other, name="", created_by_id=user, created_at=edge)
    of = slice_of(job.name, at, timezone=zone)
    load_slice(store, meg, of, timezone=zone)
    assert documents_of(store, of) == Oracle(raw_tables(rows.connection), zone=zone).of(job.name, of.period, of.as_of)
