"""The tables of one client and of the regions, as the columns and rows of a CSV file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from bi_ops.reports.client import Client
from bi_ops.reports.regions import STATUSES, RegionFigures, Regions

Table = tuple[Sequence[str], Sequence[Mapping[str, Any]]]
"""The names of the columns, and the rows."""
ClientTable = Literal["months", "form_types", "forms", "people", "security"]
RegionTable = Literal["growth", "months", "quarters", "platforms"]
_CLIENT_COLUMNS: dict[ClientTable, Sequence[str]] = {
    "months": ("period", "submissions", "sessions", "submissions_last_year", "sessions_last_year"),
    "form_types": ("form_type", "submissions", "forms_in_use"),
    "forms": (
        "form_id",
        "name",
        "form_type",
        "status",
        "last_submitted_at",
        "submissions_90d",
        "is_published",
        "is_archived",
    ),
    "people": ("user_name", "action", "rank", "count", "share_pct", "last_at"),
    "security": ("name", "title", "value", "points", "advice"),
}
_REGION_COLUMNS: dict[RegionTable, Sequence[str]] = {
    "growth": (
        *("region", "clients", "active_clients"),
        *("month", "month_submissions", "month_change_month", "month_change_year"),
        *("quarter", "quarter_submissions", "quarter_change_quarter", "quarter_change_year"),
        *("year_from", "year_to", "year_submissions", "year_change"),
    ),
    "months": ("region", "period", "submissions", "sessions", "partial"),
    "quarters": ("region", "quarter", "retention_pct", "churn_pct", *STATUSES, "partial"),
    "platforms": ("region", "month", "platform", "submissions"),
}
ALL_REGIONS_NAME = "all"


def client_table(client: Client, name: ClientTable) -> Table:
    """A table of one client.

    Args:
        client: The client.
        name: The table's name.

    Returns:
        The names of the columns, and the rows.
    """
    columns = _CLIENT_COLUMNS[name]
    if name == "security":
        return columns, _security_rows(client.security) if client.security else []
    return columns, getattr(client, name)


def region_table(regions: Regions, name: RegionTable) -> Table:
    """A table of the regions, all together first.

    Args:
        regions: The regions.
        name: The table's name.

    Returns:
        The names of the columns, and the rows.
    """
    return _REGION_COLUMNS[name], [
        {"region": figures.region or ALL_REGIONS_NAME, **row}
        for figures in regions.regions
        for row in _REGION_ROWS[name](figures)
    ]


def _security_rows(security: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The settings, and then the risks that no setting causes."""
    settings = [{**row, "value": _joined(row["value"])} for row in security["settings"]]
    others = [{**row, "name": row["code"], "title": row["text"], "value": None} for row in security["other"]]
    return [*settings, *others]


def _joined(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _growth_rows(figures: RegionFigures) -> Iterable[Mapping[str, Any]]:
    month, quarter, year = figures.month, figures.quarter, figures.year
    first, last = year["periods"] or (None, None)
    yield {
        "clients": figures.clients,
        "active_clients": figures.active_clients,
        "month": month["period"],
        **{f"month_{name}": month[name] for name in ("submissions", "change_month", "change_year")},
        "quarter": quarter["period"],
        **{f"quarter_{name}": quarter[name] for name in ("submissions", "change_quarter", "change_year")},
        "year_from": first,
        "year_to": last,
        "year_submissions": year["submissions"],
        "year_change": year["change"],
    }


def _month_rows(figures: RegionFigures) -> Iterable[Mapping[str, Any]]:
    return [{**row, "partial": _joined(row["partial"])} for row in figures.series]


def _quarter_rows(figures: RegionFigures) -> Iterable[Mapping[str, Any]]:
    return [{**row, "partial": _joined(row["partial"])} for row in figures.retention]


def _platform_rows(figures: RegionFigures) -> Iterable[Mapping[str, Any]]:
    for platform, submissions in figures.platforms.items():
        yield {"month": figures.month["period"], "platform": platform, "submissions": submissions}


_REGION_ROWS: dict[RegionTable, Callable[[RegionFigures], Iterable[Mapping[str, Any]]]] = {
    "growth": _growth_rows,
    "months": _month_rows,
    "quarters": _quarter_rows,
    "platforms": _platform_rows,
}
