"""Runs further PostgreSQL servers with special set-ups: without a time zone, or as a standby."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dev import demo_meg, postgres
from dev.embedded_stack import DatabaseServers
from dev.postgres import Postgres
from dev.processes import run_as


@contextmanager
def server_without_timezone(stack: Path, servers: DatabaseServers, name: str) -> Iterator[DatabaseServers]:
    """Run a PostgreSQL that lacks a time zone and has an empty MEG `meg_eu`; yields the databases with it.

    The embedded server looks for time zones in its installation, so a copy of that is linked without the zone.
    """
    shutil.rmtree(stack, ignore_errors=True)
    original = postgres.find_bin_dir().parent
    installation = stack / "packages" / original.parent.name / original.name
    shutil.copytree(original, installation, copy_function=os.link, symlinks=True)
    for libraries in original.parents[1].glob(f"{original.parent.name}.libs"):  # the programs find them by this path
        (stack / "packages" / libraries.name).symlink_to(libraries)
    (installation / "share" / "postgresql" / "timezone" / name).unlink()
    password = servers.secret["postgres"]
    with postgres.running(stack, password, bin_dir=installation / "bin") as server:
        yield replace(servers, postgres=_with_meg(server, servers))


@contextmanager
def standby(stack: Path, servers: DatabaseServers, **settings: str) -> Iterator[DatabaseServers]:
    """Run a streaming standby with these settings; yields the databases with it in PostgreSQL's place."""
    shutil.rmtree(stack, ignore_errors=True)
    stack.mkdir(parents=True)
    primary, account = servers.postgres, {}
    if os.geteuid() == 0:  # the server refuses to run as root, and reads only its own files
        shutil.chown(stack, "nobody")
        account = run_as("nobody")
    bin_dir, data = postgres.find_bin_dir(), stack / "postgres"
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


def _with_meg(server: Postgres, servers: DatabaseServers) -> Postgres:
    server.ensure_role(demo_meg.READER_ROLE, servers.secret["reader"])
    demo_meg.seed_database(server, "meg_eu", None)
    return server
