"""The reference MEG with demo data: one database a region, made again only when the data would differ."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from psycopg import sql

from dev.postgres import URL_ENV_VAR, Postgres
from dev.processes import StackError

_SQL = Path(__file__).parents[1] / "include" / "meg"
READER_ROLE = "bi_reader"
_OURS = "MEG BI demo:"
"""The start of the comment on each database that is made here and so may be replaced."""


@dataclass(frozen=True)
class DemoConfig:
    """What `meg_demo` of include/meg/demo.sql takes."""

    seed: int
    forms: int
    until: date
    months: int = 24
    sessions_per_form_month: float = 5


def seed_database(server: Postgres, database: str, demo: DemoConfig | None) -> bool:
    """Make a reference MEG, without rows where `demo` is None; returns whether anything had to be done.

    Raises:
        StackError: A database of this name exists that was not made here.
    """
    label = " ".join([_OURS, repr(demo), *map(_fingerprint, ("schema", "demo", "indexes", "reader_role"))])
    if server.database_exists(database):
        with server.connect() as connection:
            row = connection.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,)
            ).fetchone()
        made_by_us = row[0] if row else None
        if made_by_us == label:
            return False
        if not str(made_by_us).startswith(_OURS):
            raise StackError(
                f"The database {database} on {server.host}:{server.port} was not made by MEG BI's demo, so it is left "
                f"alone. Name another server in {URL_ENV_VAR}, or remove that database yourself."
            )
    server.create_database(database, replace=True)
    with server.connect(database) as connection:
        for name in ("schema", "demo"):
            connection.execute(_read(name))
        if demo is not None:
            connection.execute(
                "SELECT meg_demo(%s::bigint, %s, %s, %s, %s)",
                (demo.seed, demo.forms, demo.until, demo.months, demo.sessions_per_form_month),
            )
        for name in ("indexes", "reader_role"):
            connection.execute(_read(name))
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(label)))
    return True


def _read(name: str) -> bytes:
    return (_SQL / f"{name}.sql").read_bytes()


def _fingerprint(name: str) -> str:
    return hashlib.sha256(_read(name)).hexdigest()[:12]
