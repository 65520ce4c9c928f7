"""Every collection, loaded from demo data: for what reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from bi_ops.jobs import JOBS
from bi_ops.source import Meg
from bi_ops.store import Store
from dev import meg as reference
from dev.stack import DATABASE, Databases
from tests.loads import load_slice, month, slice_of
from tests.megs import connect_as_reader, utc

AT = utc(2026, 11, 1)
MONTHS = ("2026-08", "2026-09", "2026-10")
HOSTILE = "<script>alert(1)</script>"


@contextmanager
def filled_store(servers: Databases) -> Iterator[Store]:
    """The collections of two regions; one institution of each has a hostile name."""
    with servers.mongo_admin.client() as admin:
        for name in (DATABASE, f"{DATABASE}_staging"):
            admin.drop_database(name)
    with servers.mongo.client() as client:
        store = Store(client, DATABASE)
        for seed, region in enumerate(("eu", "uk")):
            database = f"meg_reports_{region}"
            reference.seed(servers.postgres, database, reference.Demo(seed, 60, date(2026, 12, 1), 14))
            with servers.postgres.connect(database) as connection:
                connection.execute("UPDATE megforms_institution SET name = %s WHERE id = 1", (HOSTILE,))
            with Meg(region, connect_as_reader(servers, database), reader="test") as meg:
                for job in JOBS:
                    for name in MONTHS if job.in_chunks else MONTHS[-1:]:
                        of = (
                            month(name, region=region, job=job)
                            if job.in_chunks
                            else slice_of(job.name, AT, region=region)
                        )
                        load_slice(store, meg, of)
        yield store
