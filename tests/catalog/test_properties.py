"""Tests that the seven collections equal the oracle's on generated data of the reference schema."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from psycopg import sql

from bi_ops.catalog.jobs import JOBS
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev.embedded_stack import DatabaseServers
from tests.load_helpers import live_documents_by_id, load_slice, make_slice
from tests.meg_factory import TABLES, MegFactory, connect_as_reader, raw_tables
from tests.oracle import Oracle
from tests.strategies import meg_cases


def fill(connection: psycopg.Connection[Any], tables: dict[str, list[dict[str, Any]]]) -> None:
    MegFactory(connection)  # empties it
    connection.execute("SET session_replication_role = replica")  # users may refer to later users
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
@given(case=meg_cases())
def test_collections_equal_oracle(
    servers: DatabaseServers, store: Store, case: tuple[dict[str, list[dict[str, Any]]], datetime, str]
) -> None:
    """All collections equal the oracle on generated data."""
    tables, as_of, zone = case
    with (
        servers.postgres.connect("meg_eu") as connection,
        MegReader("eu", connect_as_reader(servers, "meg_eu"), application_name="test") as meg,
    ):
        fill(connection, tables)
        oracle = Oracle(raw_tables(connection), zone=zone)
        for job in JOBS:
            slice_ = make_slice(job.name, as_of, timezone=zone)
            store.ledger.delete_many({})
            load_slice(store, meg, slice_, timezone=zone, force=True)
            assert live_documents_by_id(store, slice_) == oracle.documents_for(job.name, slice_.period, slice_.as_of), (
                job.name
            )


def test_postgres_refuses_nul_in_text(meg_factory: MegFactory) -> None:
    """PostgreSQL refuses a NUL in a text."""
    with pytest.raises(psycopg.DataError, match="NUL"):
        meg_factory.institution(name="a\x00b")
