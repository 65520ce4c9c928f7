"""One client: its months, forms, people, security settings, and its position among clients of similar size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from bi_ops.catalog.jobs import get_job
from bi_ops.catalog.security_risks import RISKS, SETTINGS, UNKNOWN_SETTING_ADVICE, Risk
from bi_ops.catalog.slices import IdRange
from bi_ops.mongo.store import Document
from bi_ops.reports.clients import ClientRow, Clients
from bi_ops.reports.filters import Filters
from bi_ops.reports.loaded_periods import loaded_period_steps, year_before
from bi_ops.reports.query_execution import Query, Steps, select_fields
from bi_ops.reports.slice_sums import RegionPeriod, SliceSums, Sums
from bi_ops.reports.usage import (
    CHURN,
    CLIENT_MONTH_SUMS,
    CLIENT_SESSION_SUMS,
    SUBMISSIONS,
    ClientKey,
    Usage,
    count_where,
)

_CONTEXT = "one client"
_FORMS = get_job("forms")
_FORM_FIELDS = ("form_id", "name", "form_type", "last_submitted_at", "submissions_90d", "is_published", "is_archived")
_PEOPLE_FIELDS = ("action", "rank", "user_name", "count", "share_pct", "last_at")


@dataclass(frozen=True)
class Client:
    """One client; None is unknown.

    Attributes:
        client: Its row in the table of clients.
        months: Each selected month with submissions and sessions, and those of the same month a year before.
        form_types: The submissions of the row's month by form type, with the number of forms that have any.
        forms: Its forms, with their status in the newest quarter of its region.
        people: Those of its users who are among the ten most active of its region in an action.
        security: Its settings with the risks and what to change; None if it does not handle patient data.
        peers: Its position among the active clients of its size in the selected regions.
    """

    client: ClientRow
    months: list[dict[str, Any]]
    form_types: list[dict[str, Any]]
    forms: list[dict[str, Any]]
    people: list[dict[str, Any]]
    security: dict[str, Any] | None
    peers: dict[str, Any]


def client_steps(
    filters: Filters, usage: Usage, clients: Clients, row: ClientRow, slice_sums: SliceSums | None = None
) -> Steps[Client]:
    """The queries for one client.

    Args:
        filters: The filters; the client is not filtered by its region or name.
        usage: The use of the selected clients.
        clients: Their table.
        row: The client's row.
        slice_sums: The sums of slices that were read before.
    """
    slice_sums = slice_sums or SliceSums()
    key = ClientKey(row.region, row.institution_id)
    own: Document = {"region": key.region, "institution_id": key.institution_id}
    region_ids = IdRange.with_prefix(f"{key.region}:").filter
    own_forms = {**own, "form_type": {"$in": list(filters.form_types)}} if filters.form_types else own
    own_region = replace(filters, regions=(key.region,))
    months = yield from _month_steps(slice_sums, own_region, key, (CLIENT_MONTH_SUMS, CLIENT_SESSION_SUMS))
    month = usage.month if usage.of_month(key, usage.month) else None
    form_types = (yield _form_type_query(own_forms, RegionPeriod(key.region, month))) if month else []
    forms = yield select_fields(_FORMS.name, {**own_forms, **region_ids}, _FORM_FIELDS, _CONTEXT)
    statuses = []
    if row.quarter:
        ids = RegionPeriod(key.region, row.quarter).id_range.filter
        statuses = yield select_fields(CHURN.name, {**own_forms, **ids}, ("form_id", "status"), _CONTEXT)
    people = yield select_fields("top_users", own, _PEOPLE_FIELDS, _CONTEXT)
    security = yield Query("security_risk_clients", [{"$match": own}, {"$limit": 1}], _CONTEXT)
    return Client(
        row,
        months,
        form_types,
        _forms(forms, statuses),
        sorted(people, key=lambda person: (person["action"], person["rank"])),
        _security(security[0]) if security else None,
        _peers(clients, row),
    )


def _month_steps(
    slice_sums: SliceSums, filters: Filters, key: ClientKey, all_sums: Iterable[Sums]
) -> Steps[list[dict[str, Any]]]:
    """The queries for each selected month that the region has of any of these sums, and those between them."""
    shown: set[str] = set()
    values: dict[str, dict[str, int]] = {}
    for sums in all_sums:
        loaded = yield from loaded_period_steps(sums.job, filters)
        own_periods = loaded.shown(key.region)
        shown.update(own_periods)
        compared = {period for shown_ in own_periods for period in (shown_, year_before(shown_))}
        sums_by_slice = yield from slice_sums.steps(sums, filters, loaded, compared)
        values[sums.job.measure] = {
            period: sum(row[sums.job.measure] for row in rows if row["institution_id"] == key.institution_id)
            for (_, period), rows in sums_by_slice.items()
        }
    return [
        {
            "period": period,
            **{name: months.get(period) for name, months in values.items()},
            **{f"{name}_last_year": months.get(year_before(period)) for name, months in values.items()},
        }
        for period in sorted(shown)
    ]


def _form_type_query(match: Document, slice_: RegionPeriod) -> Query:
    """The form types of a month, the most submissions first."""
    sums = {"submissions": {"$sum": "$submissions"}, "forms_in_use": count_where("submissions", "$gt", 0)}
    pipeline = [
        {"$match": {**match, **slice_.id_range.filter}},
        {"$group": {"_id": "$form_type", **sums}},
        {"$project": {"_id": 0, "form_type": "$_id", **dict.fromkeys(sums, 1)}},
        {"$sort": {"submissions": -1, "form_type": 1}},
    ]
    return Query(SUBMISSIONS.name, pipeline, _CONTEXT)


def _forms(forms: list[Document], statuses: list[Document]) -> list[dict[str, Any]]:
    status_by_form = {row["form_id"]: row["status"] for row in statuses}
    rows = [{name: form.get(name) for name in _FORM_FIELDS} for form in forms]
    rows = [{**row, "status": status_by_form.get(row["form_id"])} for row in rows]
    return sorted(rows, key=lambda row: (str(row["name"]), row["form_id"]))


def _security(document: Document) -> dict[str, Any]:
    """The settings, each with its risk, and the risks that no setting causes."""
    codes = set(document.get("risks") or ())
    by_setting = {risk.setting: risk for risk in RISKS if risk.setting and risk.code in codes}
    known = {risk.code: risk for risk in RISKS}
    settings = []
    for setting in SETTINGS:
        value, risk = document.get(setting.name), by_setting.get(setting.name)
        unknown_advice = f"{UNKNOWN_SETTING_ADVICE} {setting.advice}" if value is None else ""
        settings.append(
            {
                "name": setting.name,
                "title": setting.title,
                "value": value,
                "risk": risk.code if risk else None,
                "points": risk.points if risk else 0,
                "advice": risk.advice if risk else unknown_advice,
            }
        )
    others = sorted(codes - {risk.code for risk in by_setting.values()})
    return {
        **{name: document.get(name) for name in ("risk_level", "risk_score", "users", "admins")},
        "settings": settings,
        "other": [_other_risk(code, known.get(code)) for code in others],
        "unknown": document.get("unknown") or [],
    }


def _other_risk(code: str, risk: Risk | None) -> dict[str, Any]:
    """A risk that no setting causes, or one that a later version of the SQL template found."""
    if risk is None:
        return {"code": code, "points": None, "text": code.replace("_", " "), "advice": ""}
    return {"code": code, "points": risk.points, "text": risk.text, "advice": risk.advice}


def _peers(clients: Clients, row: ClientRow) -> dict[str, Any]:
    peers = [peer for peer in clients.clients if peer.is_active and peer.size == row.size and row.size is not None]
    submissions = [peer.submissions for peer in peers if peer.submissions is not None]
    changes = [peer.change_quarter for peer in peers if peer.change_quarter is not None]
    rank = None
    if row in peers and row.submissions is not None:
        rank = 1 + sum(value > row.submissions for value in submissions)
    return {
        "size": row.size,
        "clients": len(peers),
        "submissions_rank": rank,
        "submissions_median": median(submissions) if submissions else None,
        "change_quarter_median": round(median(changes), 1) if changes else None,
    }
