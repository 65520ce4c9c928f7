"""Seeds the reference MEG with demo data: a database per region, replaced only when its data would differ."""

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
_LABEL_PREFIX = "MEG BI demo:"
"""How the comment on each database that this module creates starts: only such a database may be replaced."""


@dataclass(frozen=True)
class DemoConfig:
    """The arguments of `meg_demo` in include/meg/demo.sql; forms, months, sessions and users are counts.

    Attributes:
        seed: Decides every random number.
        forms: The number of forms; an institution has six.
        until: The day after the last one with data.
        months: How many months before `until` have data.
        sessions_per_form_month: For a client of average size.
        more_users: How many users a client of average size has, beyond eight.
        countries: In which the institutions lie in turn, as ISO codes.
    """

    seed: int
    forms: int
    until: date
    months: int = 24
    sessions_per_form_month: float = 5
    more_users: float = 0
    countries: tuple[str, ...] = ("IE", "GB", "FR", "DE", "PL", "AU")


def seed_database(server: Postgres, database: str, demo: DemoConfig | None) -> bool:
    """Create a reference MEG, without rows where `demo` is None; returns whether the database changed.

    Raises:
        StackError: A database of this name exists that this function did not create.
    """
    label = " ".join([_LABEL_PREFIX, repr(demo), *map(_fingerprint, ("schema", "demo", "indexes", "reader_role"))])
    if server.database_exists(database):
        with server.connect() as connection:
            row = connection.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,)
            ).fetchone()
        comment = row[0] if row else None
        if comment == label:
            return False
        if not str(comment).startswith(_LABEL_PREFIX):
            raise StackError(
                f"The database {database} on {server.host}:{server.port} was not created by MEG BI's demo, so it is "
                f"not replaced. Hint: name another server in {URL_ENV_VAR}, or drop that database."
            )
    server.create_database(database, replace=True)
    with server.connect(database) as connection:
        for name in ("schema", "demo"):
            connection.execute(_read(name))
        if demo is not None:
            connection.execute(
                "SELECT meg_demo(%s::bigint, %s, %s, %s, %s, %s, %s)",
                (
                    demo.seed,
                    demo.forms,
                    demo.until,
                    demo.months,
                    demo.sessions_per_form_month,
                    demo.more_users,
                    [*demo.countries],
                ),
            )
        for name in ("indexes", "reader_role"):
            connection.execute(_read(name))
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(label)))
    return True


def _read(name: str) -> bytes:
    return (_SQL / f"{name}.sql").read_bytes()


def _fingerprint(name: str) -> str:
    return hashlib.sha256(_read(name)).hexdigest()[:12]
