"""The reference MEG with demo data: one database a region, made again only when the data would differ."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from psycopg import sql

from dev.postgres import Postgres

_SQL = Path(__file__).parents[1] / "include" / "meg"
READER = "bi_reader"


@dataclass(frozen=True)
class Demo:
    """What `meg_demo` of include/meg/demo.sql takes."""

    seed: int
    forms: int
    until: date
    months: int = 24
    sessions_per_form_month: float = 5


def seed(server: Postgres, database: str, demo: Demo | None) -> bool:
    """Make a reference MEG, without rows where `demo` is None; returns whether anything had to be done."""
    label = repr(demo) + "".join(str(_fingerprint(name)) for name in ("schema", "demo", "indexes", "reader"))
    if server.has(database):
        with server.connect() as connection:
            row = connection.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,)
            ).fetchone()
        if row and row[0] == label:
            return False
    server.create(database, anew=True)
    with server.connect(database) as connection:
        for name in ("schema", "demo"):
            connection.execute(_read(name))
        if demo is not None:
            connection.execute(
                "SELECT meg_demo(%s::bigint, %s, %s, %s, %s)",
                (demo.seed, demo.forms, demo.until, demo.months, demo.sessions_per_form_month),
            )
        for name in ("indexes", "reader"):
            connection.execute(_read(name))
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(label)))
    return True


def _read(name: str) -> bytes:
    return (_SQL / f"{name}.sql").read_bytes()


def _fingerprint(name: str) -> str:
    return hashlib.sha256(_read(name)).hexdigest()[:12]
