"""PostgreSQL servers beside the shared one, set up as some administrators do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dev import meg as reference
from dev import postgres
from dev.postgres import Postgres
from dev.processes import as_account
from dev.stack import Databases


@contextmanager
def server_without_timezone(stack: Path, servers: Databases, name: str) -> Iterator[Databases]:
    """The databases with another PostgreSQL: one that lacks a time zone, and has an empty MEG `meg_eu`.

    The embedded server finds its time zones beside its programs, so its installation is linked without that zone.
    """
    shutil.rmtree(stack, ignore_errors=True)
    original = postgres.programs().parent
    installation = stack / "packages" / original.parent.name / original.name
    shutil.copytree(original, installation, copy_function=os.link, symlinks=True)
    for libraries in original.parents[1].glob(f"{original.parent.name}.libs"):  # programs find them by this place
        (stack / "packages" / libraries.name).symlink_to(libraries)
    (installation / "share" / "postgresql" / "timezone" / name).unlink()
    password = servers.secret["postgres"]
    with postgres.running(stack, password, bin_dir=installation / "bin") as server:
        yield replace(servers, postgres=_with_meg(server, servers))


@contextmanager
def standby(stack: Path, servers: Databases, **settings: str) -> Iterator[Databases]:
    """The databases with a streaming standby of their PostgreSQL in its place, with these settings."""
    shutil.rmtree(stack, ignore_errors=True)
    stack.mkdir(parents=True)
    primary, account = servers.postgres, {}
    if os.geteuid() == 0:  # the server refuses to run as root, and reads only what is its own
        shutil.chown(stack, "nobody")
        account = as_account("nobody")
    bin_dir, data = postgres.programs(), stack / "postgres"
    subprocess.run(
        [
            *(bin_dir / "pg_basebackup", "--pgdata", data, "--write-recovery-conf", "--no-sync"),
            *("--checkpoint", "fast", "--host", primary.host, "--port", str(primary.port)),
            *("--username", primary.admin, "--no-password"),
        ],
        check=True,
        env={**os.environ, "PGPASSWORD": primary.password},
        **account,
    )
    with (data / "postgresql.auto.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    with postgres.running(stack, primary.password, bin_dir=bin_dir) as server:
        yield replace(servers, postgres=server)


def _with_meg(server: Postgres, servers: Databases) -> Postgres:
    server.ensure_role(reference.READER, servers.secret["reader"])
    reference.seed(server, "meg_eu", None)
    return server
