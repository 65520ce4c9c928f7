"""The rows of every chart in plain Python, by report name, from the selected documents of its collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from tests.reports.plain_figures import Row, before

PLATFORMS = ("android", "ios", "public", "web")


def one_decimal(value: Fraction) -> float:
    return round(float(value), 1)


def groups(documents: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    """The documents by the values of some fields, in the order of these."""
    grouped: dict[Any, list[Row]] = {}
    for document in documents:
        grouped.setdefault(tuple(document[name] for name in names), []).append(document)
    return dict(sorted(grouped.items()))


def total(documents: Iterable[Row], name: str) -> int:
    return sum(document[name] for document in documents)


def by_month_and_region(documents: list[Row], *names: str) -> list[Row]:
    return [
        {"month": month, "region": region, **{name: total(group, name) for name in names}}
        for (month, region), group in groups(documents, "period", "region").items()
    ]


def submissions_by_region(documents: list[Row]) -> list[Row]:
    return by_month_and_region(documents, "submissions")


def sessions_by_region(documents: list[Row]) -> list[Row]:
    return by_month_and_region(documents, "sessions", "observations")


def submissions_by_form_type(documents: list[Row]) -> list[Row]:
    return [
        {"month": month, "form_type": form_type, "submissions": total(group, "submissions")}
        for (month, form_type), group in groups(documents, "period", "form_type").items()
    ]


def clients(documents: list[Row]) -> list[tuple[Row, list[Row]]]:
    """The documents of each institution, with its names."""
    return [
        ({"region": region, "institution": group[0]["institution_name"], "institution_id": number}, group)
        for (region, number), group in groups(documents, "region", "institution_id").items()
    ]


def submissions_by_institution(documents: list[Row]) -> list[Row]:
    rows = [{**head, "submissions": total(group, "submissions")} for head, group in clients(documents)]
    return sorted(rows, key=lambda row: -row["submissions"])


def platform_mix(documents: list[Row]) -> list[Row]:
    return [
        {"month": month, "platform": name, "submissions": sum(row["submissions_by_platform"][name] for row in group)}
        for (month,), group in groups(documents, "period").items()
        for name in PLATFORMS
    ]


def top_movers(documents: list[Row]) -> list[Row]:
    rows = []
    for head, group in clients(documents):
        previous, now = total(group, "previous_submissions"), total(group, "submissions")
        if now != previous:
            rows.append({**head, "previous": previous, "submissions": now, "change": now - previous})
    return sorted(rows, key=lambda row: (-row["change"], row["institution"], row["region"]))


def active_forms(documents: list[Row]) -> list[Row]:
    used = [row for row in documents if row["submissions"] > 0]
    return [
        {"month": month, "region": region, "forms": len({row["form_id"] for row in group})}
        for (month, region), group in groups(used, "period", "region").items()
    ]


def form_churn(documents: list[Row]) -> list[Row]:
    sign = {"new": 1, "reactivated": 1, "churned": -1}
    changed = [row for row in documents if row["status"] in sign]
    return [
        {"quarter": quarter, "status": status, "forms": sign[status] * len(group)}
        for (quarter, status), group in groups(changed, "period", "status").items()
    ]


def retention(documents: list[Row]) -> list[Row]:
    used = {
        key: {row["form_id"] for row in group if row["submissions"] > 0}
        for key, group in groups(documents, "period", "region").items()
    }
    rows = []
    for (quarter, region), forms in used.items():
        earlier = used.get((before(quarter), region))
        if earlier:
            retained = len(earlier & forms)
            share = one_decimal(Fraction(100 * retained, len(earlier)))
            head = {"quarter": quarter, "region": region, "before": len(earlier)}
            rows.append({**head, "retained": retained, "retention_pct": share})
    return rows


def unused_forms(documents: list[Row]) -> list[Row]:
    unused = [row for row in documents if row["status"] in ("never_used", "dormant") and not row["is_archived"]]
    rows = [
        {"form_type": form_type, "status": status, "forms": len(group)}
        for (form_type, status), group in groups(unused, "form_type", "status").items()
    ]
    return sorted(rows, key=lambda row: -row["forms"])


def session_length(documents: list[Row]) -> list[Row]:
    rows = []
    valid = [
        {**row, "valid": row["sessions"] - row["invalid_durations"]}
        for row in documents
        if row["sessions"] > row["invalid_durations"]
    ]
    for (month,), group in groups(valid, "period").items():
        sessions = total(group, "valid")
        for measure, name in (("90th percentile", "p90"), ("median", "median")):
            seconds = sum(Fraction(str(row["duration_seconds"][name])) * row["valid"] for row in group)
            minutes = one_decimal(seconds / sessions / 60)
            rows.append({"month": month, "measure": measure, "minutes": minutes, "sessions": sessions})
    return rows


def active_days(documents: list[Row]) -> list[Row]:
    used = [row for row in documents if row["sessions"] > 0]
    return [
        {
            "month": month,
            "region": region,
            "active_days": one_decimal(Fraction(total(group, "active_days"), len(group))),
            "forms": len(group),
        }
        for (month, region), group in groups(used, "period", "region").items()
    ]


def top_users(documents: list[Row]) -> list[Row]:
    ordered = sorted(documents, key=lambda row: (row["action"], -row["count"], row["region"], row["rank"]))
    return [
        {
            **{name: row[name] for name in ("region", "rank", "count", "share_pct")},
            "action": row["action"].replace("_", " "),
            "user": row["user_name"],
            "institution": row["institution_name"],
        }
        for row in ordered
    ]


def institution_activity(documents: list[Row]) -> list[Row]:
    names = ("region", "users", "wards", "users_active_90d", "submissions_90d")
    rows = [
        {"institution": row["name"], **{name: row[name] for name in names}} for row in documents if row["is_active"]
    ]
    return sorted(rows, key=lambda row: (row["region"], row["institution"]))


def adoption(documents: list[Row]) -> list[Row]:
    names = ("region", "institution_id", "users", "users_active_90d")
    rows = [
        {
            "institution": row["name"],
            **{name: row[name] for name in names},
            "active_pct": one_decimal(Fraction(100 * row["users_active_90d"], row["users"])),
        }
        for row in documents
        if row["is_active"] and row["users"]
    ]
    return sorted(rows, key=lambda row: (row["active_pct"], -row["users"], row["institution"], row["region"]))


def dormant_forms(documents: list[Row]) -> list[Row]:
    unused = [row for row in documents if row["is_published"] and not row["is_archived"] and not row["submissions_90d"]]
    rows = [{**head, "forms": len(group)} for head, group in clients(unused)]
    return sorted(rows, key=lambda row: -row["forms"])


def risk_levels(documents: list[Row]) -> list[Row]:
    return [
        {"region": region, "level": level, "clients": len(group)}
        for (region, level), group in groups(documents, "region", "risk_level").items()
    ]


def highest_risk_clients(documents: list[Row]) -> list[Row]:
    names = ("region", "institution_id", "risk_score", "users")
    rows = [
        {
            **{name: row[name] for name in names},
            "institution": row["name"],
            "level": row["risk_level"],
            "risks": ", ".join(row["risks"]),
        }
        for row in documents
    ]
    return sorted(rows, key=lambda row: (-row["risk_score"], -row["users"], row["region"], row["institution_id"]))


def common_risks(documents: list[Row]) -> list[Row]:
    having = [{"risk": risk.replace("_", " "), "region": row["region"]} for row in documents for risk in row["risks"]]
    rows = [
        {"risk": risk, "region": region, "clients": len(group)}
        for (risk, region), group in groups(having, "risk", "region").items()
    ]
    return sorted(rows, key=lambda row: -row["clients"])


def first_fifteen(rows: list[Row]) -> list[Row]:
    return rows[:15]


def both_ends(rows: list[Row]) -> list[Row]:
    return rows if len(rows) <= 20 else rows[:10] + rows[-10:]


def three_of_each_action(rows: list[Row]) -> list[Row]:
    return [row for (_,), group in groups(rows, "action").items() for row in group[:3]]


ROWS: dict[str, Callable[[list[Row]], list[Row]]] = {
    function.__name__: function
    for function in (
        *(submissions_by_region, submissions_by_form_type, submissions_by_institution, platform_mix, top_movers),
        *(active_forms, form_churn, retention, unused_forms, sessions_by_region, session_length, active_days),
        *(top_users, institution_activity, adoption, dormant_forms, risk_levels, highest_risk_clients, common_risks),
    )
}
"""The function that computes all rows of each chart."""
SHOWN: dict[str, Callable[[list[Row]], list[Row]]] = {
    "submissions_by_institution": first_fifteen,
    "adoption": first_fifteen,
    "dormant_forms": first_fifteen,
    "highest_risk_clients": first_fifteen,
    "top_movers": both_ends,
    "top_users": three_of_each_action,
}
"""The function that selects the rows that a chart shows, where it does not show all."""
