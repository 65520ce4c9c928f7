"""The whole stack: both databases, a seeded MEG for each region, and Airflow over them."""

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

from dev import airflow, demo_meg, mongo, postgres
from dev.mongo import Mongo
from dev.postgres import Postgres
from dev.processes import StackError, kill_stale_processes, write_secret

LIVE_DATABASE = "bi"
WRITER_USER = "bi_writer"


@dataclass(frozen=True)
class DatabaseServers:
    """The databases of a running stack.

    Attributes:
        postgres: MEG's regions and Airflow's metadata.
        mongo: MongoDB, through the account that the pipeline uses.
        mongo_admin: MongoDB, through its administrator.
        secret: The stack's secrets, by name.
    """

    postgres: Postgres
    mongo: Mongo
    mongo_admin: Mongo
    secret: Mapping[str, str]

    def connections(self, regions: Mapping[str, str]) -> dict[str, str]:
        """Airflow's connections, as its environment variables; `regions` maps each region to its database."""
        found = {
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
        found["BI_MONGO"] = {
            "conn_type": "mongo",
            "host": self.mongo.host,
            "port": self.mongo.port,
            "schema": LIVE_DATABASE,
            "login": self.mongo.login,
            "password": self.mongo.password,
            "extra": self.mongo.options,
        }
        return {f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in found.items()}


@contextmanager
def stack_lock(stack: Path, *, reset: bool = False) -> Iterator[None]:
    """Hold the stack's folder for this process alone, with nothing left running in it from before or after.

    Args:
        stack: The folder.
        reset: Whether what an earlier start left in it goes first.

    Raises:
        StackError: Another process holds it.
    """
    stack = stack.resolve()
    stack.mkdir(parents=True, exist_ok=True)
    with (stack / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackError(
                f"The stack in {stack} is already running (process {lock.read().strip()}). Stop that one first."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        kill_stale_processes(stack)
        if reset:
            for each in stack.iterdir():
                if each.is_dir():
                    shutil.rmtree(each)
                elif each.name != "lock":
                    each.unlink()
        try:
            yield
        finally:
            kill_stale_processes(stack)


def load_or_create_secrets(stack: Path) -> dict[str, str]:
    """The stack's secrets, by name, made at its first start."""
    file = stack / "secrets.json"
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    names = ("postgres", "mongo", "reader", "writer", "viewer", "redis")
    wanted = {name: secrets.token_urlsafe(24) for name in names} | airflow.generate_secrets()
    if wanted.keys() - found.keys():
        found = wanted | found
        write_secret(file, json.dumps(found))
    return found


@contextmanager
def databases(
    stack: Path, mongo_parameters: dict[str, str] | None = None, *, mongo_cache_gb: float = 0.5
) -> Iterator[DatabaseServers]:
    """Both database servers, with the accounts of least privilege that the pipeline uses.

    Args:
        stack: The stack's folder, which keeps their data.
        mongo_parameters: MongoDB's, as `mongod --setParameter` takes them.
        mongo_cache_gb: How much of memory MongoDB takes for its cache.

    Raises:
        StackError: One of them cannot be started.
    """
    secret = load_or_create_secrets(stack)
    with (
        postgres.running(stack, secret["postgres"]) as pg,
        mongo.running(stack, secret["mongo"], parameters=mongo_parameters, cache_gb=mongo_cache_gb) as admin,
    ):
        pg.ensure_role(demo_meg.READER_ROLE, secret["reader"])
        # On another's server the account is what it is.
        writer = mongo.ensure_writer_user(admin, WRITER_USER, secret["writer"]) if admin.pid else admin
        yield DatabaseServers(pg, writer, admin, secret)
