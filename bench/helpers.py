"""Loading slices without Airflow, and where to: what several benchmarks do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import psycopg

from bi_ops.catalog.slices import Slice
from bi_ops.catalog.sql import render_sql
from bi_ops.load.publish import publish
from bi_ops.load.register import Chunk, Load, LoadRegister, LoadSettings
from bi_ops.load.stage import plan, stage
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import DagRunRef, Store
from bi_ops.settings import Settings
from dev import embedded_stack
from dev.mongo import Mongo
from dev.postgres import Postgres

REGION = "eu"


def conninfo(server: Postgres, database: str) -> str:
    """Where a database is, as libpq takes it."""
    return psycopg.conninfo.make_conninfo(
        host=server.host, port=server.port, user=server.admin, password=server.password, dbname=database
    )


def mongo_uri(server: Mongo) -> str:
    """Where MongoDB is, as its drivers take it."""
    options = "&".join(f"{name}={value}" for name, value in server.options.items())
    return f"mongodb://{server.login}:{server.password}@{server.host}:{server.port}/?{options}"


def open_meg(server: Postgres, database: str) -> MegReader:
    """A MEG, as the pipeline reads it."""
    return MegReader(REGION, lambda: psycopg.connect(conninfo(server, database)), application_name="bench")


def drop_databases(servers: embedded_stack.DatabaseServers) -> None:
    """Nothing live, nothing staged."""
    with servers.mongo_admin.client() as client:
        for name in (embedded_stack.LIVE_DATABASE, f"{embedded_stack.LIVE_DATABASE}_staging"):
            client.drop_database(name)


def stage_slice(opened: MegReader, store: Store, of: Slice, run: DagRunRef) -> None:
    """Plan a slice, and read each task's chunks in turn."""
    settings = Settings.from_env({})
    store.ensure_staging_collections(of.job.name)
    tasks = plan(
        opened,
        of,
        sql=render_sql("list_forms.sql"),
        forms_per_chunk=settings.forms_per_chunk,
        max_tasks=settings.max_mapped_tasks,
    )
    load = register(store, of, run, tasks)
    sql = render_sql(f"{of.job.name}.sql")
    for number, chunks in enumerate(tasks):
        for _ in stage(opened, store, load, number, chunks, sql=sql):
            pass


def register(store: Store, of: Slice, run: DagRunRef, tasks: Sequence[Sequence[Chunk]]) -> Load:
    """A load of a slice, as plan keeps it."""
    settings = Settings.from_env({})
    planned = LoadSettings(settings.timezone, settings.forms_per_chunk)
    load = Load(of, run, planned, tuple(tasks), datetime.now(timezone.utc))
    LoadRegister(store).create(load)
    return load


def latest_load(store: Store, of: Slice) -> Load:
    """The load of a slice that was planned last, maybe by another process."""
    row = store.loads.find_one(of.to_json(), sort=[("staged_at", -1)])
    if row is None:
        raise RuntimeError(f"Nothing was planned of {of}.")
    return LoadRegister(store).get(row["_id"], of.task_group)


def publish_slice(store: Store, of: Slice) -> None:
    """Publish what has been read of a slice."""
    publish(store, latest_load(store, of), max_shrink=0.5, force=True)
