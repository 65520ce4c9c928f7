"""PostgreSQL servers beside the shared one, set up as some administrators do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dev import meg as reference
from dev import postgres
from dev.postgres import Postgres
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


def _with_meg(server: Postgres, servers: Databases) -> Postgres:
    server.ensure_role(reference.READER, servers.secret["reader"])
    reference.seed(server, "meg_eu", None)
    return server
