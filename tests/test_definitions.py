"""Every job's SQL against the second implementation of its definition, on demo data that looks like life."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import psycopg
import pytest

from bi_ops.jobs import JOBS, Job
from bi_ops.source import Meg
from bi_ops.store import Store
from dev import meg as reference
from dev.stack import Databases
from tests.loads import documents_of, load_slice, slice_of
from tests.megs import connect_as_reader, raw_tables, utc
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
