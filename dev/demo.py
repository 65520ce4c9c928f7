"""The two regions that this machine's own stack has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pendulum

from dev import meg, stack
from dev.postgres import Postgres
from dev.processes import StackError
from dev.show import console

FORMS = {"eu": 180, "uk": 120}
DATABASES = {region: f"meg_demo_{region}" for region in FORMS}
MONTHS = 3


@contextmanager
def databases(folder: Path) -> Iterator[stack.Databases]:
    """Both servers, with a MEG for each region.

    Raises:
        StackError: They cannot be started.
    """
    with ExitStack() as until_done:
        with console.status("Starting PostgreSQL and MongoDB"):
            servers = until_done.enter_context(stack.databases(folder))
        seed(servers.postgres)
        yield servers


def seed(server: Postgres) -> None:
    """Make the MEG of each region, where it does not stand there yet."""
    for number, (region, forms) in enumerate(FORMS.items(), start=7):
        # Until the month's end, so that the same data stands all month; no report looks past its own instant.
        demo = meg.Demo(seed=number, forms=forms, until=this_month().add(months=1).date())
        with console.status(f"Seeding MEG {region}"):
            meg.seed(server, DATABASES[region], demo)
        console.print(f"MEG {region}: {demo.forms} forms, {demo.months} months until {demo.until}")


def settings(servers: stack.Databases) -> dict[str, str]:
    """The settings and connections of these regions, as environment variables."""
    return {
        "BI_AGGREGATE": "1",
        "MEG_REGIONS": ",".join(FORMS),
        "BI_START_DATE": first_month().to_date_string(),
        **servers.connections(DATABASES),
    }


def this_month() -> pendulum.DateTime:
    """The present month's first midnight.

    Raises:
        StackError: `BI_TIMEZONE` is none.
    """
    timezone = os.environ.get("BI_TIMEZONE") or "UTC"
    try:
        return pendulum.now(timezone).start_of("month")
    except (ValueError, KeyError, OSError):
        raise StackError(f"BI_TIMEZONE is {timezone!r}, which is no IANA time zone, such as Europe/Dublin.") from None


def first_month() -> pendulum.DateTime:
    """The first month that is loaded."""
    return this_month().subtract(months=MONTHS)
