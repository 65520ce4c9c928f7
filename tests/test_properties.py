"""For any data that the reference schema holds, the seven collections are what the definitions say."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from bi_ops.jobs import JOBS
from bi_ops.source import Meg
from bi_ops.store import Store
from dev.stack import Databases
from tests.loads import documents_of, load_slice, slice_of
from tests.megs import TABLES, MegRows, connect_as_reader, raw_tables, utc
from tests.nasty import megs
from tests.oracle import Oracle

INSTANTS = (utc(2026, 11, 1), utc(2026, 10, 1), utc(2027, 1, 1, 13, 37), utc(2024, 3, 1), utc(2026, 10, 4, 5))
ZONES = ("UTC", "Europe/Dublin", "Australia/Sydney")


def fill(connection: psycopg.Connection[Any], tables: dict[str, list[dict[str, Any]]]) -> None:
    MegRows(connection)  # empties it
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
def test_all_collections_equal_their_definitions(
    servers: Databases, store: Store, data: st.DataObject, at: datetime, zone: str
) -> None:
    tables = data.draw(megs(at, zone))
    with (
        servers.postgres.connect("meg_eu") as connection,
        Meg("eu", connect_as_reader(servers, "meg_eu"), reader="test") as meg,
    ):
        fill(connection, tables)
        oracle = Oracle(raw_tables(connection), zone=zone)
        for job in JOBS:
            of = slice_of(job.name, at, timezone=zone)
            store.ledger.delete_many({})
            load_slice(store, meg, of, timezone=zone, force=True)
            assert documents_of(store, of) == oracle.of(job.name, of.period, of.as_of), job.name


def test_the_source_itself_refuses_what_bson_text_could_not_tell_apart(rows: MegRows) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        rows.institution(name="a\x00b")
