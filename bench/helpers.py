"""Helpers of several benchmarks: connection strings, and loading a slice without Airflow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import psycopg

from bi_ops.catalog.slices import Slice
from bi_ops.catalog.sql_templates import render_sql
from bi_ops.load.plan import plan
from bi_ops.load.publish import publish
from bi_ops.load.stage import stage
from bi_ops.load.staged_loads import Chunk, Load, LoadSettings, LoadStates
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from bi_ops.settings import Settings
from dev import embedded_stack
from dev.mongo import Mongo
from dev.postgres import Postgres

REGION = "eu"


def conninfo(server: Postgres, database: str) -> str:
    """The connection string of a PostgreSQL database, as libpq takes it."""
    return psycopg.conninfo.make_conninfo(
        host=server.host, port=server.port, user=server.admin, password=server.password, dbname=database
    )


def mongo_uri(server: Mongo) -> str:
    """The connection string of MongoDB, with its password."""
    options = "&".join(f"{name}={value}" for name, value in server.options.items())
    return f"mongodb://{server.login}:{server.password}@{server.host}:{server.port}/?{options}"


def open_meg(server: Postgres, database: str) -> MegReader:
    """A reader of the MEG in this database, as the pipeline has it."""
    return MegReader(REGION, lambda: psycopg.connect(conninfo(server, database)), application_name="bench")


def drop_databases(servers: embedded_stack.DatabaseServers) -> None:
    """Drop the live and the staging database."""
    with servers.mongo_admin.client() as client:
        for name in (embedded_stack.LIVE_DATABASE, f"{embedded_stack.LIVE_DATABASE}_staging"):
            client.drop_database(name)


def stage_slice(meg: MegReader, store: Store, slice_: Slice, run: DagRunRef) -> None:
    """Plan a slice, and stage its tasks one after the other."""
    settings = Settings.from_env({})
    store.ensure_staging_collections(slice_.job.name)
    tasks = plan(
        meg,
        slice_,
        sql=render_sql("list_forms.sql"),
        forms_per_chunk=settings.forms_per_chunk,
        max_tasks=settings.max_mapped_tasks,
    )
    load = register_load(store, slice_, run, tasks)
    sql = render_sql(f"{slice_.job.name}.sql")
    for task in range(len(tasks)):
        for _ in stage(meg, store, load, task, sql=sql):
            pass


def register_load(store: Store, slice_: Slice, run: DagRunRef, tasks: Sequence[Sequence[Chunk]]) -> Load:
    """Register a load of a slice, as the plan task does."""
    settings = Settings.from_env({})
    load_settings = LoadSettings(settings.timezone, settings.forms_per_chunk)
    load = Load(slice_, run, load_settings, datetime.now(timezone.utc))
    LoadStates(store).create(load, tasks)
    return load


def latest_load(store: Store, slice_: Slice) -> Load:
    """The load of a slice that was planned last, possibly by another process.

    Raises:
        RuntimeError: There is none.
    """
    row = store.loads.find_one(slice_.to_json(), sort=[("staged_at", -1)])
    if row is None:
        raise RuntimeError(f"No load of {slice_} is registered.")
    return LoadStates(store).get(row["_id"], slice_.task_group)


def publish_slice(store: Store, slice_: Slice) -> None:
    """Publish the last load of a slice."""
    publish(store, latest_load(store, slice_), max_shrink=0.5, force=True)
