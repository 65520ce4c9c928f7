"""The embedded stack's folder, lock and secrets, and its two database servers."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev import airflow, demo_meg, mongo, postgres
from dev.mongo import Mongo
from dev.postgres import Postgres
from dev.processes import StackRunningError, kill_stale_processes, write_secret

LIVE_DATABASE = "bi"
WRITER_USER = "bi_writer"


@dataclass(frozen=True)
class DatabaseServers:
    """The database servers of a running stack.

    Attributes:
        postgres: The server of the regions' MEG and of Airflow's metadata.
        mongo: MongoDB, with the pipeline's account.
        mongo_admin: MongoDB, with the administrator's account.
        secret: The stack's secrets, by name.
    """

    postgres: Postgres
    mongo: Mongo
    mongo_admin: Mongo
    secret: Mapping[str, str]

    def connections(self, regions: Mapping[str, str]) -> dict[str, str]:
        """Airflow's connections as environment variables; `regions` maps entry region to its database."""
        connections: dict[str, dict[str, Any]] = {
            f"MEG_{region.upper()}": {
                "conn_type": "postgres",
                "host": self.postgres.host,
                "port": self.postgres.port,
                "schema": database,
                "login": demo_meg.READER_ROLE,
                "password": self.secret["reader"],
                "extra": self.postgres.options,
            }
            for region, database in regions.items()
        }
        connections["BI_MONGO"] = {
            "conn_type": "mongo",
            "host": self.mongo.host,
            "port": self.mongo.port,
            "schema": LIVE_DATABASE,
            "login": self.mongo.login,
            "password": self.mongo.password,
            "extra": self.mongo.options,
        }
        return {f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in connections.items()}


@contextmanager
def stack_lock(stack: Path, *, reset: bool = False) -> Iterator[None]:
    """Lock the stack's folder for this process, and end the stack's processes before and after the block.

    Args:
        stack: The folder.
        reset: Whether to empty the folder first.

    Raises:
        StackRunningError: Another process holds the lock.
    """
    stack = stack.resolve()
    stack.mkdir(parents=True, exist_ok=True)
    with (stack / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackRunningError(
                f"The stack in {stack} is already running (process {lock.read().strip()}). Hint: stop it first."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        kill_stale_processes(stack)
        if reset:
            for entry in stack.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != "lock":
                    entry.unlink()
        try:
            yield
        finally:
            kill_stale_processes(stack)


def load_or_create_secrets(stack: Path) -> dict[str, str]:
    """The stack's secrets, by name, generated at its first start."""
    file = stack / "secrets.json"
    stored: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    names = ("postgres", "mongo", "reader", "writer", "viewer", "redis")
    generated = {name: secrets.token_urlsafe(24) for name in names} | airflow.generate_secrets()
    if generated.keys() - stored.keys():
        stored = generated | stored
        write_secret(file, json.dumps(stored))
    return stored


@contextmanager
def databases(
    stack: Path, mongo_parameters: dict[str, str] | None = None, *, mongo_cache_gb: float = 0.5
) -> Iterator[DatabaseServers]:
    """Run both database servers until the block ends, with the least-privileged accounts that the pipeline uses.

    Args:
        stack: The stack's folder, which keeps their data.
        mongo_parameters: MongoDB's server parameters, as `mongod --setParameter` takes them.
        mongo_cache_gb: The size of MongoDB's cache, in GB.

    Raises:
        StackError: A server cannot be started.
    """
    secret = load_or_create_secrets(stack)
    with (
        postgres.running(stack, secret["postgres"]) as pg,
        mongo.running(stack, secret["mongo"], parameters=mongo_parameters, cache_gb=mongo_cache_gb) as admin,
    ):
        pg.ensure_role(demo_meg.READER_ROLE, secret["reader"])
        # On an external server the given account serves for both.
        writer = mongo.ensure_writer_user(admin, WRITER_USER, secret["writer"]) if admin.pid else admin
        yield DatabaseServers(pg, writer, admin, secret)
