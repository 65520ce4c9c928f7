"""Loads the same rows from MEG to MongoDB by other means: plain Airflow hooks, dlt, ADBC with pymongoarrow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from airflow.providers.mongo.hooks.mongo import MongoHook
from airflow.providers.postgres.hooks.postgres import PostgresHook
from pymongo import MongoClient
from pymongoarrow.api import write

from bench import dlt_append

_PERIOD = {"region": "eu", "period": "2026-10", "period_start": datetime(2026, 10, 1, tzinfo=timezone.utc)}
_RUN_ID = "scheduled__2026-11-01T00:00:00+00:00"


def documents(names: list[str], rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """The documents that the package makes of these rows, built in plain Python."""
    metadata = {"schema_version": 1, "loaded_at": datetime.now(timezone.utc), "run_id": _RUN_ID}
    return [
        {"_id": f"eu:2026-10:{row[0]}", **_PERIOD, **dict(zip(names, row, strict=True)), **metadata} for row in rows
    ]


def copy_to_null(_mongo: str, postgres: str, sql: str, _names: list[str], _collection: str) -> None:
    """Read the rows and discard them: the upper limit of PostgreSQL's speed."""
    with (
        psycopg.connect(postgres) as connection,
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT binary)") as copy,
    ):
        for _ in copy:
            pass


def get_records_insert_many(_mongo: str, _postgres: str, sql: str, names: list[str], collection: str) -> None:
    """Use the hooks as the providers document them: all rows in memory, then into the live collection."""
    rows = PostgresHook("meg_eu").get_records(sql)
    MongoHook("bi_mongo").insert_many(collection, documents(names, rows))


def dlt_pipeline(mongo: str, postgres: str, sql: str, names: list[str], collection: str) -> None:
    """Load with dlt."""

    def rows() -> Iterator[list[dict[str, Any]]]:
        with psycopg.connect(postgres) as connection, connection.cursor(name="dlt", binary=True) as cursor:
            cursor.execute(sql)
            while batch := cursor.fetchmany(dlt_append.BATCH):
                yield documents(names, batch)

    with MongoClient[dict[str, Any]](mongo) as client:
        dlt_append.append_documents(rows, client["bi"][collection])


def pymongoarrow_adbc(mongo: str, postgres: str, sql: str, _names: list[str], collection: str) -> None:
    """Load by columns: ADBC into Arrow, Arrow into BSON."""
    parts = psycopg.conninfo.conninfo_to_dict(postgres)
    uri = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**parts)
    with adbc.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        table = cursor.fetch_arrow_table()
    ids = pc.binary_join_element_wise("eu:2026-10", pc.cast(table["form_id"], pa.string()), ":")
    for name, value in {
        **_PERIOD,
        "schema_version": 1,
        "loaded_at": datetime.now(timezone.utc),
        "run_id": _RUN_ID,
    }.items():
        table = table.append_column(name, pa.array([value] * len(table)))
    table = table.add_column(0, "_id", ids)
    timestamp_columns = [name for name in table.column_names if pa.types.is_timestamp(table[name].type)]
    for name in timestamp_columns:
        position = table.column_names.index(name)
        table = table.set_column(position, name, table[name].cast(pa.timestamp("ms", "UTC"), safe=False))
    with MongoClient[dict[str, Any]](mongo) as client:
        write(client["bi"][collection], table)
