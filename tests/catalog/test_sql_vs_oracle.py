"""Tests each job's SQL against the oracle, on realistic demo data and on boundary instants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from bi_ops.catalog.jobs import JOBS, Job
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev import demo_meg
from dev.embedded_stack import DatabaseServers
from tests.load_helpers import live_documents_by_id, load_slice, make_slice
from tests.meg_factory import MegFactory, connect_as_reader, raw_tables, utc
from tests.oracle import Oracle
from tests.strategies import boundary_instants

INSTANTS = (utc(2026, 11, 21), utc(2026, 10, 1), utc(2026, 1, 1), utc(2025, 2, 14, 13, 37))
DEMO = demo_meg.DemoConfig(seed=11, forms=60, until=date(2026, 11, 22))


@pytest.fixture(scope="module")
def demo(servers: DatabaseServers) -> Iterator[psycopg.Connection[Any]]:
    demo_meg.seed_database(servers.postgres, "meg_demo", DEMO)
    with servers.postgres.connect("meg_demo") as connection:
        yield connection


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("at", INSTANTS, ids=str)
def test_demo_data_equals_oracle(
    servers: DatabaseServers, store: Store, demo: psycopg.Connection[Any], job: Job, at: datetime
) -> None:
    """The demo data gives the oracle's figures."""
    slice_ = make_slice(job.name, at)
    with MegReader("eu", connect_as_reader(servers, "meg_demo"), application_name="test") as meg:
        load_slice(store, meg, slice_)
    expected = Oracle(raw_tables(demo)).documents_for(job.name, slice_.period, slice_.as_of)
    assert live_documents_by_id(store, slice_) == expected
    assert expected, "demo data says something about every job"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Dublin", "Australia/Sydney"])
def test_boundary_instants_equal_oracle(
    store: Store, meg: MegReader, meg_factory: MegFactory, job: Job, zone: str
) -> None:
    """Each boundary instant counts on the side that the definition gives it."""
    at = utc(2026, 11, 21, 9)
    institution = meg_factory.institution()
    other_client = meg_factory.institution()
    for edge in boundary_instants(at, zone):
        # Each has its own user, auditor, form and institution, so that no boundary hides another.
        user = meg_factory.user(last_login_at=edge, date_joined_at=edge)
        auditor = meg_factory.auditor(institution, user=user, is_admin=True)
        form = meg_factory.form(institution, collects_patient_data=True)
        meg_factory.session(form, edge, auditor_id=auditor)
        meg_factory.session(form, edge + timedelta(hours=13), auditor_id=auditor, ended_at=edge)
        for born, archived in ((edge, None), (utc(2020, 1, 1), edge)):
            meg_factory.form(other_client, created_at=born, archived_at=archived, collects_patient_data=True)
        meg_factory.institution(created_at=edge)
        meg_factory.add("documents_document", institution_id=other_client, name="", created_by_id=user, created_at=edge)
    slice_ = make_slice(job.name, at, timezone=zone)
    load_slice(store, meg, slice_, timezone=zone)
    assert live_documents_by_id(store, slice_) == Oracle(raw_tables(meg_factory.connection), zone=zone).documents_for(
        job.name, slice_.period, slice_.as_of
    )
