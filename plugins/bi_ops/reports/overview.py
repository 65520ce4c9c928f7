"""The first view: headline figures with their history, and the clients that grow, fade or need attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bi_ops.mongo.store import Document
from bi_ops.reports.attention import percent
from bi_ops.reports.clients import ClientRow, Clients
from bi_ops.reports.filters import Filters
from bi_ops.reports.loaded_periods import (
    LoadedPeriods,
    loaded_period_steps,
    previous_period,
    trailing_periods,
    year_before,
)
from bi_ops.reports.query_execution import Steps
from bi_ops.reports.slice_sums import SliceSums
from bi_ops.reports.usage import SERIES_MONTHS, SESSION_SUMS, SESSIONS, Usage, oldest_as_of

LIST_LENGTH = 5
Change = dict[str, float]
"""A change in `percent`, or in `points` of a percentage, and the `base` that it is measured on."""


@dataclass(frozen=True)
class Tile:
    """One headline figure; None is unknown.

    Attributes:
        name: Its name.
        title: Its title.
        value: Its value.
        total: The total that it is a part of, if any.
        unit: `count` or `percent`.
        change_month: The change on the month before.
        change_year: The change on the same month a year before.
        series: Each month's value, with the regions that lack the month; empty for a figure without history.
        note: What it describes, where that is not the month.
    """

    name: str
    title: str
    value: float | None
    total: int | None = None
    unit: Literal["count", "percent"] = "count"
    change_month: Change | None = None
    change_year: Change | None = None
    series: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class OverviewFigures:
    """The first view.

    Attributes:
        month: The newest month that all selected regions have.
        partial: The months after it, each with the selected regions that lack it.
        as_of: The instant that the oldest snapshot shown describes, in ISO 8601.
        quarter: The newest quarter that all selected regions have.
        tiles: The headline figures.
        growing: The active clients whose submissions grew most in the newest quarter of their region.
        fading: Those whose submissions fell most.
        attention: Those that need most attention.
    """

    month: str | None
    partial: Mapping[str, list[str]]
    as_of: str | None
    quarter: str | None
    tiles: list[Tile]
    growing: list[ClientRow]
    fading: list[ClientRow]
    attention: list[ClientRow]


def overview_steps(
    filters: Filters, usage: Usage, clients: Clients, slice_sums: SliceSums | None = None
) -> Steps[OverviewFigures]:
    """The queries for the first view.

    Args:
        filters: The filters.
        usage: The use of the selected clients.
        clients: Their table.
        slice_sums: The sums of slices that were read before.
    """
    sessions, sessions_loaded = yield from _session_steps(filters, usage.month, slice_sums or SliceSums())
    as_of = oldest_as_of([*usage.institutions, *usage.security.values()])
    active = [row for row in clients.clients if row.is_active]
    changed = sorted((row for row in active if row.change_quarter_count), key=lambda row: row.change_quarter_count or 0)
    return OverviewFigures(
        usage.month,
        usage.months.newer_partial(),
        as_of.isoformat() if as_of else None,
        usage.quarters.newest(),
        _tiles(usage, clients, sessions, sessions_loaded),
        [row for row in reversed(changed) if (row.change_quarter_count or 0) > 0][:LIST_LENGTH],
        [row for row in changed if (row.change_quarter_count or 0) < 0][:LIST_LENGTH],
        [row for row in active if row.attention.score][:LIST_LENGTH],
    )


def _session_steps(
    filters: Filters, month: str | None, slice_sums: SliceSums
) -> Steps[tuple[Mapping[str, int], LoadedPeriods]]:
    """The sessions of each month, of the regions that have it, and the loaded months."""
    loaded = yield from loaded_period_steps(SESSIONS, filters)
    months = trailing_periods(month, SERIES_MONTHS) if month else ()
    sums = yield from slice_sums.steps(SESSION_SUMS, filters, loaded, months)
    totals = {name: 0 for name in months if loaded.coverage.has(name)}
    for (_, period), rows in sums.items():
        totals[period] += sum(row["sessions"] for row in rows)
    return totals, loaded


def _tiles(usage: Usage, clients: Clients, sessions: Mapping[str, int], sessions_loaded: LoadedPeriods) -> list[Tile]:
    """The headline figures, in their order."""
    submissions, institutions, forms, forms_used = _totals(usage)
    shares = {month: percent(forms_used[month], forms[month]) for month in forms}
    active = [row for row in clients.clients if row.is_active]
    clients_known = len(active) if clients.clients else None
    security = usage.security.values()
    in_use = _month_tile(usage, usage.months, shares, name="forms_in_use", title="Forms in use", unit="percent")
    if usage.month in forms and in_use.value is not None:
        in_use = replace(in_use, note=f"{forms_used[usage.month]:,} of {forms[usage.month]:,} forms")
    return [
        _month_tile(usage, usage.months, submissions, name="submissions", title="Submissions"),
        _month_tile(usage, sessions_loaded, sessions, name="sessions", title="Sessions"),
        replace(
            _month_tile(usage, usage.months, institutions, name="active_institutions", title="Active institutions"),
            total=len(clients.clients) or None,  # also those that have left since: they may have been active
        ),
        Tile(
            "active_users",
            "Active users, 30 days",
            _sum(row.users_active_30d for row in clients.clients),
            _sum(row.users for row in clients.clients),
            note=_snapshot_note(usage.institutions),
        ),
        in_use,
        Tile(
            "clients_at_risk",
            "Clients at risk",
            sum(row.attention.level == "at risk" for row in active) if clients.clients else None,
            clients_known,
            note=_snapshot_note(usage.institutions),
        ),
        Tile(
            "high_security_risk",
            "High security risk",
            sum(row.get("risk_level") == "high" for row in security) if security else None,
            len(security) or None,
            note=_snapshot_note(security),
        ),
    ]


def _totals(usage: Usage) -> tuple[dict[str, int], ...]:
    """By month: submissions, institutions with submissions, forms, forms with submissions; of regions that have it."""
    months = trailing_periods(usage.month, SERIES_MONTHS) if usage.month else ()
    loaded = [month for month in months if usage.months.coverage.has(month)]
    rows: dict[str, list[Document]] = {month: [] for month in loaded}
    for (_, month), clients in usage.by_month.items():
        rows[month] += clients.values()
    return (
        {month: sum(row["submissions"] for row in rows[month]) for month in loaded},
        {month: sum(row["submissions"] > 0 for row in rows[month]) for month in loaded},
        {month: sum(row["forms"] for row in rows[month]) for month in loaded},
        {month: sum(row["forms_used"] for row in rows[month]) for month in loaded},
    )


def _month_tile(
    usage: Usage,
    loaded: LoadedPeriods,
    values: Mapping[str, float | None],
    *,
    name: str,
    title: str,
    unit: Literal["count", "percent"] = "count",
) -> Tile:
    """A figure of the month, which is compared with months that every selected region has too."""
    month = usage.month
    if month is None:
        return Tile(name, title, None, unit=unit)

    def common_value(period: str) -> float | None:
        return values.get(period) if loaded.has(period) else None

    def change(base: float | None) -> Change | None:
        value = common_value(month)
        if value is None or not base:
            return None
        if unit == "percent":
            return {"points": round(value - base, 1), "base": base}
        return {"percent": round(100 * (value - base) / base, 1), "base": base}

    return Tile(
        name,
        title,
        common_value(month),
        unit=unit,
        change_month=change(common_value(previous_period(month))),
        change_year=change(common_value(year_before(month))),
        series=[
            {"period": period, "value": values.get(period), "partial": loaded.lacking(period)}
            for period in usage.shown_months
        ],
    )


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum of the known values; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _snapshot_note(documents: Iterable[Document]) -> str:
    as_of = oldest_as_of(documents)
    return f"as of {as_of:%Y-%m-%d}; no history" if as_of else ""
