"""Decides of which month the digest is due, and stores what was sent, in the collection `bi_digest`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bi_ops.catalog.due_slices import due_slices
from bi_ops.catalog.jobs import jobs_for
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.catalog.slices import Slice
from bi_ops.errors import NoDigestError
from bi_ops.load.ledger import unpublished
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings

RegionStarts = Mapping[str, datetime | None]
"""When each region began to use MEG, where that is known: nothing before is due."""


@dataclass(frozen=True)
class DigestMonth:
    """The month of a digest.

    Attributes:
        name: Its name, such as `2026-10`.
        regions: The regions that have published it.
        lacking: Those that have not.
    """

    name: str
    regions: tuple[str, ...]
    lacking: tuple[str, ...] = ()


def due_month(store: Store, settings: Settings, now: datetime, starts: RegionStarts) -> DigestMonth:
    """The month that ended last, if every region has published it and its digest was not sent.

    Raises:
        NoDigestError: One of both is not so.
    """
    month = Period.last_ended(now, Cadence.MONTHLY, settings.timezone)
    context = f"digest of {month.name}"
    if sent_at := read_state(store, month.name).sent_at:
        raise NoDigestError(
            "the digest of this month was sent",
            context=context,
            actual=f"sent at {sent_at.isoformat(timespec='minutes')}",
            hint="No action needed. To send it again, trigger bi_digest.",
        )
    slices = _monthly_slices(settings, month, starts)
    if missing := unpublished(store, slices):
        raise NoDigestError(
            "not every region has published this month",
            context=context,
            expected=f"{', '.join(job.name for job in jobs_for(Cadence.MONTHLY))} of {', '.join(settings.regions)}",
            actual=f"missing: {', '.join(f'{slice_.job.name} {slice_.region}' for slice_ in missing)}",
            hint="No action needed: the last missing publish sends it. To send it without them, trigger bi_digest "
            "with this period.",
        )
    return DigestMonth(month.name, _regions(slices))


def requested_month(
    store: Store, settings: Settings, month: Period | None, now: datetime, starts: RegionStarts
) -> DigestMonth:
    """The month of a digest that was triggered by hand.

    Args:
        store: The databases.
        settings: The settings in force.
        month: The requested month; None for the newest one since `BI_START_DATE` that every region has published.
        now: The present.
        starts: When each region began to use MEG.

    Raises:
        NoDigestError: No region has published the month, or there is no month that every region has published.
    """
    if month is None:
        return _newest_complete_month(store, settings, now, starts)
    slices = [slice_ for slice_ in _monthly_slices(settings, month, starts) if slice_.period]
    lacking = _regions(unpublished(store, slices))
    regions = tuple(region for region in _regions(slices) if region not in lacking)
    if not regions:
        raise NoDigestError(
            "no region has published this month",
            context=f"digest of {month.name}",
            expected=f"the month in one of the regions {', '.join(settings.regions)}",
            hint="Trigger bi_backfill to load it, then trigger bi_digest again.",
        )
    return DigestMonth(month.name, regions, lacking)


def _newest_complete_month(store: Store, settings: Settings, now: datetime, starts: RegionStarts) -> DigestMonth:
    month = Period.last_ended(now, Cadence.MONTHLY, settings.timezone)
    while month.start >= settings.start_datetime:
        slices = _monthly_slices(settings, month, starts)
        if slices and not unpublished(store, slices):
            return DigestMonth(month.name, _regions(slices))
        month = month.previous()
    raise NoDigestError(
        "no month is published by every region",
        context="digest",
        expected=f"a month since BI_START_DATE ({settings.start_date}) of {', '.join(settings.regions)}",
        hint="Trigger bi_backfill to load what is missing; or trigger bi_digest with a period that some regions have.",
    )


def _monthly_slices(settings: Settings, month: Period, starts: RegionStarts) -> list[Slice]:
    """The slices of all monthly jobs and regions that are due at the end of a month."""
    return [
        slice_
        for region in settings.regions
        for slice_ in due_slices(settings, region, month.end, region_start=starts.get(region), start=month.start)
        if slice_.job.cadence is Cadence.MONTHLY
    ]


def _regions(slices: list[Slice]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(slice_.region for slice_ in slices))


@dataclass(frozen=True)
class DigestState:
    """What was sent of one month's digest.

    Attributes:
        month: The month's name.
        sent_at: When every service had taken it; None if one has not.
        run_id: The DAG run that sent it last.
        delivered: The positions of the services, in the connection's extra, that took it.
    """

    month: str
    sent_at: datetime | None = None
    run_id: str = ""
    delivered: tuple[int, ...] = ()

    def delivered_before(self, run_id: str, *, by_hand: bool) -> tuple[int, ...]:
        """The services that a run leaves out, since they took it in an earlier attempt of the run.

        A run that an asset started also leaves out those that took it in an earlier run, which others refused.
        """
        return self.delivered if not self.sent_at and (not by_hand or self.run_id == run_id) else ()


def read_state(store: Store, month: str) -> DigestState:
    """What was sent of a month's digest."""
    row = store.digest.find_one({"_id": month}) or {}
    return DigestState(month, row.get("sent_at"), row.get("run_id", ""), tuple(row.get("delivered", ())))


def write_state(store: Store, state: DigestState) -> None:
    """Store what was sent of a month's digest."""
    row = {"sent_at": state.sent_at, "run_id": state.run_id, "delivered": [*state.delivered]}
    store.digest.replace_one({"_id": state.month}, row, upsert=True)
