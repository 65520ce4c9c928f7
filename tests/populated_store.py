"""Loads every collection from demo data, for tests of their readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from bi_ops.catalog.jobs import JOBS
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev import demo_meg
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.load_helpers import load_slice, make_slice, monthly_slice
from tests.meg_factory import connect_as_reader, utc

AS_OF = utc(2026, 11, 1)
MONTHS = ("2026-08", "2026-09", "2026-10")
XSS_NAME = "<script>alert(1)</script>"


@contextmanager
def load_all_collections(servers: DatabaseServers) -> Iterator[Store]:
    """Load the collections of two regions; one institution of each has a name with markup."""
    with servers.mongo_admin.client() as admin:
        for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging"):
            admin.drop_database(name)
    with servers.mongo.client() as client:
        store = Store(client, LIVE_DATABASE)
        for seed, region in enumerate(("eu", "uk")):
            database = f"meg_reports_{region}"
            demo_meg.seed_database(servers.postgres, database, demo_meg.DemoConfig(seed, 60, date(2026, 12, 1), 14))
            with servers.postgres.connect(database) as connection:
                connection.execute("UPDATE megforms_institution SET name = %s WHERE id = 1", (XSS_NAME,))
            with MegReader(region, connect_as_reader(servers, database), application_name="test") as meg:
                for job in JOBS:
                    for name in MONTHS if job.chunked else MONTHS[-1:]:
                        slice_ = (
                            monthly_slice(name, region=region, job=job)
                            if job.chunked
                            else make_slice(job.name, AS_OF, region=region)
                        )
                        load_slice(store, meg, slice_)
        yield store
