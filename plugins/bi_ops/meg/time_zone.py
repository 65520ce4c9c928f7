"""The time zone of `BI_TIMEZONE` on MEG's server, whose zones may be others than Python's."""

from __future__ import annotations

from bi_ops.errors import SettingsError
from bi_ops.meg.reader import MegReader


def check_timezone(meg: MegReader, name: str, *, context: str) -> None:
    """Check that MEG's server has a time zone, as queries need that cut days and months in it.

    Args:
        meg: The region's MEG.
        name: The zone's IANA name.
        context: The slice or the region that the error names.

    Raises:
        SettingsError: It does not.
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
