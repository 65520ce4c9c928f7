"""The two demo regions of the embedded stack."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

import pendulum

from dev import demo_meg, embedded_stack
from dev.console import console
from dev.postgres import Postgres
from dev.processes import StackError, write_secret

DEMO_FORMS = {"eu": 180, "uk": 120}
_SEEDS = {"eu": 15, "uk": 16}
_COUNTRIES = {"eu": ("IE", "FR", "DE", "PL"), "uk": ("GB",)}
DEMO_DATABASES = {region: f"meg_demo_{region}" for region in DEMO_FORMS}
CATCHUP_MONTHS = 3
HISTORY_MONTHS = 14
"""What `make up` loads in all: the last two months can then be compared with those a year before."""
_SHARED_ENV_FILE = "environment.json"


@contextmanager
def databases(folder: Path) -> Iterator[embedded_stack.DatabaseServers]:
    """Run both database servers until the block ends, with a seeded MEG for each region.

    Raises:
        StackError: A server cannot be started.
    """
    with ExitStack() as exit_stack:
        with console.status("Starting PostgreSQL and MongoDB"):
            servers = exit_stack.enter_context(embedded_stack.databases(folder))
        seed(servers.postgres)
        yield servers


def seed(server: Postgres) -> None:
    """Create and seed the MEG of each region, unless it is there already."""
    for region in DEMO_FORMS:
        # Until the month's end, so that the data stays the same all month; no report looks past its own instant.
        demo = demo_config(region, this_month().add(months=1).date())
        with console.status(f"Seeding MEG {region}"):
            demo_meg.seed_database(server, DEMO_DATABASES[region], demo)
        console.print(f"MEG {region}: {demo.forms} forms, {demo.months} months until {demo.until}")


def demo_config(region: str, until: date) -> demo_meg.DemoConfig:
    """The data of a region's MEG: clients that grow, decline, leave, return and begin, of every size."""
    return demo_meg.DemoConfig(
        seed=_SEEDS[region],
        forms=DEMO_FORMS[region],
        until=until,
        sessions_per_form_month=8,
        more_users=150,
        countries=_COUNTRIES[region],
    )


def demo_env(servers: embedded_stack.DatabaseServers) -> dict[str, str]:
    """The settings and connections of the demo regions, as environment variables."""
    return {
        "BI_AGGREGATE": "1",
        "MEG_REGIONS": ",".join(DEMO_FORMS),
        "BI_START_DATE": first_month().to_date_string(),
        **servers.connections(DEMO_DATABASES),
    }


@contextmanager
def shared_env(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Let other processes use the running stack until the block ends; they read the environment from its folder."""
    file = folder / _SHARED_ENV_FILE
    write_secret(file, json.dumps(dict(environment)))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def running_env(folder: Path) -> dict[str, str]:
    """The environment of the stack that another process runs; empty if it does not share it."""
    file = folder / _SHARED_ENV_FILE
    environment: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return environment


def this_month() -> pendulum.DateTime:
    """The first midnight of the current month in `BI_TIMEZONE`.

    Raises:
        StackError: `BI_TIMEZONE` is not an IANA time zone.
    """
    timezone = os.environ.get("BI_TIMEZONE") or "UTC"
    try:
        return pendulum.now(timezone).start_of("month")
    except (ValueError, KeyError, OSError):
        raise StackError(f"BI_TIMEZONE is {timezone!r}; expected an IANA time zone, such as Europe/Dublin.") from None


def first_month() -> pendulum.DateTime:
    """The first month that catchup loads."""
    return this_month().subtract(months=CATCHUP_MONTHS)


def history() -> list[str]:
    """The months that `make up` loads in all, such as `2026-10`, the newest first."""
    return [this_month().subtract(months=number).format("YYYY-MM") for number in range(1, HISTORY_MONTHS + 1)]
