"""Runs PgBouncer in front of the embedded PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dev import demo_meg
from dev.embedded_stack import DatabaseServers
from dev.processes import Service, child_env, free_port, stop

PROGRAM = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
needs_pgbouncer = pytest.mark.skipif(
    PROGRAM is None, reason="there is no PgBouncer here, and only root may install it: apt-get install pgbouncer"
)


@contextmanager
def pgbouncer(
    folder: Path, servers: DatabaseServers, *, password: str | None = None, database: str = "", **settings: str
) -> Iterator[tuple[DatabaseServers, Service]]:
    """Run PgBouncer until the block ends; yields the databases with it in PostgreSQL's place, and its process.

    Args:
        folder: An empty folder.
        servers: The databases.
        password: The reader's password in its auth_file; the right one by default.
        database: Changes to its entry for `meg_eu`, such as `port=1`.
        **settings: Further settings of pgbouncer.ini.
    """
    server, port = servers.postgres, free_port()
    entry = f"host={server.host} port={server.port} {database}"
    secret = servers.secret["reader"] if password is None else password
    (folder / "users.txt").write_text(f'"{demo_meg.READER_ROLE}" "{secret}"\n')
    defaults = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": str(folder / "users.txt"),
        "pool_mode": "transaction",
    }
    lines = [f"{name} = {value}" for name, value in {**defaults, **settings}.items()]
    (folder / "pgbouncer.ini").write_text("\n".join(["[databases]", f"meg_eu = {entry}", "[pgbouncer]", *lines, ""]))
    account = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    for path in (folder, *folder.iterdir()) if account else ():
        shutil.chown(path, account)
    service = Service(
        "PgBouncer",
        [str(PROGRAM), str(folder / "pgbouncer.ini")],
        log=folder / "logs" / "pgbouncer.log",
        environment=child_env(folder, {}),
        user=account,
    )
    bouncer = replace(server, port=port, pid=service.process.pid)
    try:
        service.wait_until(lambda: _listens(port), seconds=30)
        yield replace(servers, postgres=bouncer), service
    finally:
        stop(service)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
