"""For any data that the reference schema holds, the seven collections are what the definitions say."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from bi_ops.catalog.jobs import JOBS
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev.embedded_stack import DatabaseServers
from tests.load_helpers import documents_of, load_slice, slice_of
from tests.meg_factory import TABLES, MegFactory, connect_as_reader, raw_tables, utc
from tests.oracle import Oracle
from tests.strategies import megs

INSTANTS = (utc(2026, 11, 1), utc(2026, 10, 1), utc(2027, 1, 1, 13, 37), utc(2024, 3, 1), utc(2026, 10, 4, 5))
ZONES = ("UTC", "Europe/Dublin", "Australia/Sydney")


def fill(connection: psycopg.Connection[Any], tables: dict[str, list[dict[str, Any]]]) -> None:
    MegFactory(connection)  # empties it
    connection.execute("SET session_replication_role = replica")  # users may be created by later ones
    for table in TABLES:
        for row in tables[table]:
            connection.execute(
                sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(map(sql.Identifier, row)),
                    sql.SQL(", ").join(map(sql.Placeholder, row)),
                ),
                row,
            )


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(data=st.data(), at=st.sampled_from(INSTANTS), zone=st.sampled_from(ZONES))
def test_collections_equal_oracle(
    servers: DatabaseServers, store: Store, data: st.DataObject, at: datetime, zone: str
) -> None:
    """All collections equal the oracle on generated data."""
    tables = data.draw(megs(at, zone))
    with (
        servers.postgres.connect("meg_eu") as connection,
        MegReader("eu", connect_as_reader(servers, "meg_eu"), application_name="test") as meg,
    ):
        fill(connection, tables)
        oracle = Oracle(raw_tables(connection), zone=zone)
        for job in JOBS:
            of = slice_of(job.name, at, timezone=zone)
            store.ledger.delete_many({})
            load_slice(store, meg, of, timezone=zone, force=True)
            assert documents_of(store, of) == oracle.of(job.name, of.period, of.as_of), job.name


def test_postgres_refuses_nul_in_text(rows: MegFactory) -> None:
    """PostgreSQL refuses a NUL in a text."""
    with pytest.raises(psycopg.DataError, match="NUL"):
        rows.institution(name="a\x00b")
