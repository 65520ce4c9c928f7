"""The table of clients: size, use, changes, forms that churned, security risk and the attention that each needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bi_ops.mongo.store import Document
from bi_ops.reports.attention import (
    Attention,
    ClientUse,
    assess,
    days_since,
    difference,
    percent_change,
    size,
)
from bi_ops.reports.loaded_periods import previous_period, year_before
from bi_ops.reports.usage import ClientKey, QuarterUse, Usage, oldest_as_of


@dataclass(frozen=True)
class ClientRow:
    """One client; None is unknown.

    Attributes:
        region: Its region.
        institution_id: MEG's id of the institution.
        name: Its name.
        country: Its country.
        is_active: Whether it is a client now.
        size: `small`, `medium` or `large`, by its users.
        users: Its active users.
        users_active_30d: Those of them who submitted a session within 30 days.
        submissions: Its submissions of the overview's month.
        series: Its submissions of each of the 13 months up to that month.
        quarter: The newest quarter of its region.
        quarter_submissions: Its submissions in that quarter.
        change_quarter: Their change on the quarter before, in %.
        change_year: Their change on the same quarter a year before, in %.
        change_quarter_count: Their change on the quarter before, in submissions.
        days_since_last: The days from its last submission to the as-of instant.
        forms_churned: Its forms that were used in the quarter before and not in the newest.
        forms_used_before: Its forms that were used in the quarter before.
        risk_level: Its security risk; None for a client that does not handle patient data.
        risk_score: The points of that risk.
        attention: The attention that it needs.
    """

    region: str
    institution_id: int
    name: str
    country: str | None
    is_active: bool | None
    size: str | None
    users: int | None
    users_active_30d: int | None
    submissions: int | None
    series: list[dict[str, Any]]
    quarter: str | None
    quarter_submissions: int | None
    change_quarter: float | None
    change_year: float | None
    change_quarter_count: int | None
    days_since_last: int | None
    forms_churned: int | None
    forms_used_before: int | None
    risk_level: str | None
    risk_score: int | None
    attention: Attention


@dataclass(frozen=True)
class Clients:
    """All selected clients.

    Attributes:
        month: The month of `submissions`: the newest that all selected regions have.
        quarter: The newest quarter that all selected regions have; each row has that of its region.
        as_of: The instant that the oldest snapshot of institutions describes, in ISO 8601.
        clients: Them, those that need most attention first.
    """

    month: str | None
    quarter: str | None
    as_of: str | None
    clients: list[ClientRow]


def list_clients(usage: Usage) -> Clients:
    """The table of clients."""
    rows = sorted((_row(usage, document) for document in usage.institutions), key=_most_attention_first)
    as_of = oldest_as_of(usage.institutions)
    return Clients(usage.month, usage.quarters.newest(), as_of.isoformat() if as_of else None, rows)


def _most_attention_first(row: ClientRow) -> tuple[int, str, str, int]:
    return -row.attention.score, row.name, row.region, row.institution_id


def _row(usage: Usage, document: Document) -> ClientRow:
    key = ClientKey(document["region"], document["institution_id"])
    quarter = usage.quarter_by_region.get(key.region)
    now = usage.of_quarter(key, quarter)
    before = usage.of_quarter(key, quarter and previous_period(quarter))
    year_ago = usage.of_quarter(key, quarter and year_before(quarter))
    month = usage.of_month(key, usage.month)
    uses = [(period, usage.of_month(key, period)) for period in usage.shown_months]
    risk = usage.security.get(key, {})
    return ClientRow(
        *key,
        name=document["name"],
        country=document.get("country"),
        is_active=document.get("is_active"),
        size=size(document.get("users")),
        users=document.get("users"),
        users_active_30d=document.get("users_active_30d"),
        submissions=month and month.submissions,
        series=[{"period": period, "value": use and use.submissions} for period, use in uses],
        quarter=quarter,
        quarter_submissions=now and now.submissions,
        change_quarter=percent_change(now and now.submissions, before and before.submissions),
        change_year=percent_change(now and now.submissions, year_ago and year_ago.submissions),
        change_quarter_count=difference(now and now.submissions, before and before.submissions),
        days_since_last=days_since(document.get("as_of"), document.get("last_submitted_at")),
        forms_churned=now and now.churned,
        forms_used_before=now and now.churned + now.retained,
        risk_level=risk.get("risk_level"),
        risk_score=risk.get("risk_score"),
        attention=assess(_client_use(document, now, before)),
    )


def _client_use(document: Document, now: QuarterUse | None, before: QuarterUse | None) -> ClientUse:
    return ClientUse(
        is_active=bool(document.get("is_active")),
        as_of=document.get("as_of"),
        created_at=document.get("created_at"),
        last_submitted_at=document.get("last_submitted_at"),
        submissions=now and now.submissions,
        previous_submissions=before and before.submissions,
        forms_churned=now and now.churned,
        forms_used_before=now and now.churned + now.retained,
    )


def csv_table(clients: Clients) -> tuple[list[str], list[Mapping[str, Any]]]:
    """The columns and rows of the whole table: a column for each month of the series and each part of the attention."""
    names = [field.name for field in fields(ClientRow) if field.name not in ("series", "attention")]
    months = sorted({point["period"] for row in clients.clients for point in row.series})
    columns = [*names, "attention_score", "attention_level", "attention_reasons", *map(_month_column, months)]
    return columns, [_csv_row(row) for row in clients.clients]


def _csv_row(row: ClientRow) -> Mapping[str, Any]:
    return {
        **vars(row),
        "attention_score": row.attention.score,
        "attention_level": row.attention.level,
        "attention_reasons": "; ".join(row.attention.reasons),
        **{_month_column(point["period"]): point["value"] for point in row.series},
    }


def _month_column(month: str) -> str:
    return f"submissions {month}"
