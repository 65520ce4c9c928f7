"""What a load of each job costs without Airflow: processor time, storage and network, for the sizing guide."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import psycopg

from bench.helpers import REGION, conninfo, drop_databases, publish_slice, stage_slice
from bench.measure import measure, processor_seconds
from bi_ops.catalog.jobs import JOBS, Job, get_job
from bi_ops.catalog.periods import Period
from bi_ops.catalog.slices import Slice
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import STAGING_SUFFIX, DagRunRef, Store
from dev import demo_meg
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers

UNTIL = date(2026, 11, 1)
MONTHS = 24
_AS_OF = datetime(2026, 11, 1, tzinfo=timezone.utc)
_RUN = DagRunRef("bench", "bench__2026-11-01")
_INDEXES = json.loads((Path(__file__).parents[1] / "include" / "mongo" / "indexes.json").read_text())
_TCP_INFO_BYTES = struct.Struct("@120x2Q")
"""Bytes sent and acknowledged, and bytes received: `tcpi_bytes_acked` and `tcpi_bytes_received` of Linux."""


@dataclass(frozen=True)
class CollectionSize:
    """The size of one job's collections on MongoDB's disk, in bytes.

    Attributes:
        documents: The number of live documents.
        live_bytes: Size of the live collection, compressed.
        raw_bytes: The same, not compressed.
        id_index_bytes: Size of its index of `_id`.
        other_index_bytes: Size of its recommended indexes.
        staged_bytes: Size of the staging collection with its indexes.
    """

    documents: int
    live_bytes: int
    raw_bytes: int
    id_index_bytes: int
    other_index_bytes: int
    staged_bytes: int


@dataclass(frozen=True)
class LoadCost:
    """The cost of one load of a slice: plan, stage and publish, into empty collections.

    Attributes:
        size: The documents, and the size of its collections.
        cpu: Processor seconds of its tasks, PostgreSQL and MongoDB.
        meg_bytes: Bytes from and to MEG.
        mongo_bytes: Bytes from and to MongoDB.
    """

    size: CollectionSize
    cpu: float
    meg_bytes: int
    mongo_bytes: int


def seed(servers: DatabaseServers, forms: int, sessions: float) -> str:
    """Seed a MEG with two years of data; returns its database.

    Args:
        servers: The databases.
        forms: The number of forms, of which a tenth is archived.
        sessions: About how many sessions a form has in a month; a session has about four observations.
    """
    database = f"bench_sizing_{forms}_{sessions:g}".replace(".", "_")
    demo = demo_meg.DemoConfig(seed=1, forms=forms, until=UNTIL, months=MONTHS, sessions_per_form_month=sessions)
    if demo_meg.seed_database(servers.postgres, database, demo):
        with servers.postgres.connect(database) as connection:
            connection.execute("VACUUM ANALYZE")
    return database


def count_observations(servers: DatabaseServers, database: str) -> int:
    """The number of observations in a MEG."""
    with servers.postgres.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM megforms_observation").fetchone()
    return int(row[0]) if row else 0


def measure_load(servers: DatabaseServers, database: str, job_name: str) -> LoadCost:
    """Load one slice into empty collections twice: once for processor time and storage, once for the network.

    Args:
        servers: The databases.
        database: The region's MEG.
        job_name: The job.
    """
    work = _Work(servers, database, _slice(get_job(job_name)))
    create_live_collections(servers)
    cpu = _measure_with_servers(servers, work.stage) + _measure_with_servers(servers, work.publish)
    storage = measure_storage(servers)[job_name]
    create_live_collections(servers)
    mongo_before = mongo_bytes(servers)
    meg_bytes = work.stage()
    work.publish()
    return LoadCost(storage, cpu, meg_bytes, mongo_bytes(servers) - mongo_before)


@dataclass(frozen=True)
class _Work:
    servers: DatabaseServers
    database: str
    slice: Slice

    def stage(self) -> int:
        """Plan and stage; returns the bytes from and to MEG."""
        connections: list[psycopg.Connection[Any]] = []

        def connect() -> psycopg.Connection[Any]:
            connections.append(psycopg.connect(conninfo(self.servers.postgres, self.database)))
            return connections[-1]

        with self.servers.mongo.client() as client, MegReader(REGION, connect, application_name="bench") as meg:
            stage_slice(meg, Store(client, LIVE_DATABASE), self.slice, _RUN)
            return sum(map(_connection_bytes, connections))

    def publish(self) -> None:
        with self.servers.mongo.client() as client:
            publish_slice(Store(client, LIVE_DATABASE), self.slice)


def _slice(job: Job) -> Slice:
    if job.is_snapshot:
        return Slice(job, REGION, _AS_OF)
    period = Period.containing(_AS_OF, job.cadence, "UTC").previous()
    return Slice(job, REGION, period.end, period)


def _measure_with_servers(servers: DatabaseServers, func: Callable[[], Any]) -> float:
    """The processor seconds of a call and of both servers meanwhile."""
    pids = (servers.postgres.pid, servers.mongo_admin.pid)
    before = sum(map(processor_seconds, pids))
    return measure(func).cpu + sum(map(processor_seconds, pids)) - before


def _connection_bytes(connection: psycopg.Connection[Any]) -> int:
    with socket.socket(fileno=connection.fileno()) as sock:
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES.size)
        finally:
            sock.detach()  # the connection owns it
    return sum(_TCP_INFO_BYTES.unpack(info))


def mongo_bytes(servers: DatabaseServers) -> int:
    """The bytes that MongoDB has received and sent since its start."""
    with servers.mongo_admin.client() as client:
        network = client.admin.command("serverStatus")["network"]
        return int(network["physicalBytesIn"] + network["physicalBytesOut"])


def create_live_collections(servers: DatabaseServers) -> None:
    """Empty both databases, and create the recommended indexes before the load, as on a running system."""
    drop_databases(servers)
    with servers.mongo_admin.client() as client:
        for job in JOBS:
            collection = client[LIVE_DATABASE].create_collection(job.name)
            for index in _INDEXES.get(job.name, ()):
                collection.create_index([*index["key"].items()], name=index["name"])


def measure_storage(servers: DatabaseServers) -> dict[str, CollectionSize]:
    """The size of each job's collections."""
    with servers.mongo_admin.client() as client:
        client.admin.command("fsync")  # a checkpoint: else the sizes on disk lag behind
        staging = client[f"{LIVE_DATABASE}{STAGING_SUFFIX}"]
        staged_names = set(staging.list_collection_names())
        sizes = {}
        for job in JOBS:
            live = client[LIVE_DATABASE].command("collStats", job.name)
            staged = staging.command("collStats", job.name) if job.name in staged_names else None
            id_index = live["indexSizes"]["_id_"]
            sizes[job.name] = CollectionSize(
                live["count"],
                live["storageSize"],
                live["size"],
                id_index,
                live["totalIndexSize"] - id_index,
                staged["storageSize"] + staged["totalIndexSize"] if staged else 0,
            )
    return sizes
