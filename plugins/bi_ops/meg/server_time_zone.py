"""Checks that MEG's server has the time zone in `BI_TIMEZONE`; its zones may differ from Python's."""

from __future__ import annotations

from bi_ops.errors import SettingsError
from bi_ops.meg.reader import MegReader


def check_timezone(meg: MegReader, name: str, *, context: str) -> None:
    """Check that MEG's server has a time zone, which the queries use for days.

    Args:
        meg: The region's MEG.
        name: The zone's IANA name.
        context: The slice or region, for the error.

    Raises:
        SettingsError: The server does not have the time zone.
    """
    if meg.has_timezone(name):
        return
    raise SettingsError(
        f"MEG's server lacks the time zone {name} (BI_TIMEZONE)",
        context=context,
        expected="a time zone that both Python and MEG's server know",
        actual=name,
        hint="Set BI_TIMEZONE to another name of the zone (Europe/Kyiv was Europe/Kiev), or update the "
        "time zones of MEG's server: on Debian and Ubuntu, install tzdata-legacy and restart PostgreSQL.",
    )
