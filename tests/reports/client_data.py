"""Documents of 34 clients over fourteen months and five quarters: some grow or fade, one is silent, one has left."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

from bi_ops.catalog.jobs import JOBS, LoadMode
from bi_ops.catalog.periods import Cadence
from bi_ops.mongo.store import Store
from tests.meg_factory import utc
from tests.reports.live_rows import insert_live

AS_OF = utc(2026, 11, 1)
MONTHS = [f"{year}-{month:02}" for year in (2025, 2026) for month in range(1, 13)][8:22]
"""2025-09 to 2026-10."""
MISSING_MONTH = "2025-12"
"""The month that no region has."""
PARTIAL_MONTHS = {"2026-03": "uk", "2026-10": "uk"}
"""The months that one region lacks."""
MONTH = "2026-09"
"""The newest month that both regions have."""
QUARTERS = ["2025-Q3", "2025-Q4", "2026-Q1", "2026-Q2", "2026-Q3"]
CLIENTS = {"eu": 28, "uk": 6}
HOSPITAL, QUIET_HOSPITAL, MARKUP = "Hôpital Saint-André", "Cottage Hospital", "<b>Klinik</b> & Söhne"
NAMES = {("eu", 3): HOSPITAL, ("uk", 2): QUIET_HOSPITAL, ("eu", 5): MARKUP}
SILENT, LEFT = ("eu", 4), ("eu", 6)
FORM_TYPES = ("audit", "checklist", "survey")
ACTIONS = ("audit_submitters", "document_creators", "issue_creators")
QUARTER_FACTORS = (1.0, 0.4, 1.5, 0.7, 1.1)
"""How the submissions of the newest quarter compare with those of the one before, by a client's number."""


def client_documents() -> dict[str, list[dict[str, Any]]]:
    """The documents of each collection, and the ledger's rows under `bi_loads`."""
    documents: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for region, count in CLIENTS.items():
        for number in range(1, count + 1):
            name = NAMES.get((region, number), f"Clinic {number:02} of {region}")
            _add_client(documents, {"region": region, "institution_id": number, "institution_name": name}, name)
        documents["top_users"] += _people(region)
        documents["bi_loads"] += _ledger(region)
    return documents


def insert_client_data(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Insert the documents, and return them."""
    documents = client_documents()
    for collection, rows in documents.items():
        insert_live(store.live[collection], *rows)
    return documents


def is_loaded(region: str, month: str) -> bool:
    """Whether the region has the month."""
    return month != MISSING_MONTH and PARTIAL_MONTHS.get(month) != region


def _add_client(documents: dict[str, list[dict[str, Any]]], client: dict[str, Any], name: str) -> None:
    region, number = key = client["region"], client["institution_id"]
    for place, form_type in enumerate(FORM_TYPES):
        form = {**client, "form_id": 10 * number + place, "form_type": form_type}
        form_key = f"{region}:{{}}:{form['form_id']}"
        for position, month in enumerate(MONTHS):
            if not is_loaded(region, month):
                continue
            submissions = 20 * number + 3 * place + position
            head = {**form, "_id": form_key.format(month), "period": month}
            documents["monthly_submissions"].append(
                {
                    **head,
                    "submissions": submissions,
                    "submissions_by_platform": {"web": submissions - 6, "ios": 3, "android": 2, "public": 1},
                }
            )
            documents["monthly_sessions"].append({**head, "sessions": submissions // 2})
        documents["quarterly_form_churn"] += [
            {**form, "_id": form_key.format(quarter), "period": quarter, "is_archived": False, **use}
            for quarter, use in zip(QUARTERS, _quarters(number, place), strict=True)
        ]
        documents["forms"].append(
            {
                **form,
                "_id": f"{region}:{form['form_id']}",
                "name": f"{form_type.title()} {number}",
                "is_published": place != 2,
                "is_archived": False,
                "submissions_90d": 60 * number + place,
                "last_submitted_at": AS_OF - timedelta(days=2 + place),
                "as_of": AS_OF,
            }
        )
    head = {"region": region, "institution_id": number, "name": name, "country": "IE", "as_of": AS_OF}
    documents["institutions"].append(
        {
            **head,
            "_id": f"{region}:{number}",
            "is_active": key != LEFT,
            "created_at": utc(2024, 1, 1),
            "users": 12 * number,
            "users_active_30d": 7 * number,
            "last_submitted_at": AS_OF - timedelta(days=75 if key == SILENT else 2),
        }
    )
    if number % 2:
        documents["security_risk_clients"].append({**head, "_id": f"{region}:{number}", **_security(number)})


def _quarters(number: int, place: int) -> list[dict[str, Any]]:
    """A form's submissions of each quarter; the last forms of every fifth client churn in the newest one."""
    before = 30 * number + place
    factor = QUARTER_FACTORS[number % len(QUARTER_FACTORS)]
    submissions = [before - 10, before - 5, before, before, round(before * factor)]
    if number % 5 == 1 and place:
        submissions[-1] = 0
    return [
        {"submissions": count, "previous_submissions": before, "status": "retained" if count else "churned"}
        for count in submissions
    ]


def _security(number: int) -> dict[str, Any]:
    is_risky = number % 3 == 0
    risks = ["mfa_not_required", "no_ip_allowlist", "short_passwords"] if is_risky else []
    return {
        "sso_enforced": False,
        "mfa_required": not is_risky,
        "password_min_length": 6 if is_risky else 12,
        "breached_password_check": True,
        "session_idle_minutes": 30,
        "ip_allowlist": [] if is_risky else ["192.0.2.0/24"],
        "data_retention_days": None,
        "users": 12 * number,
        "admins": 2,
        "risks": risks,
        "unknown": ["data_retention_days"],
        "risk_score": 6 if is_risky else 0,
        "risk_level": "high" if is_risky else "low",
    }


def _people(region: str) -> list[dict[str, Any]]:
    """The ten most active of each action; none is of the quiet hospital."""
    numbers = [number for number in range(1, 7) if NAMES.get((region, number)) != QUIET_HOSPITAL]
    return [
        {
            "_id": f"{region}:{action}:{rank:02}",
            "region": region,
            "action": action,
            "rank": rank,
            "user_id": 100 * place + rank,
            "user_name": f"Person {place}{rank} of {region}",
            "institution_id": numbers[(rank + place) % len(numbers)],
            "institution_name": "",
            "count": 500 - 30 * rank,
            "share_pct": 2.5,
            "last_at": AS_OF - timedelta(days=rank),
            "as_of": AS_OF,
        }
        for place, action in enumerate(ACTIONS, start=1)
        for rank in range(1, 11)
    ]


def _ledger(region: str) -> list[dict[str, Any]]:
    months = [month for month in MONTHS if is_loaded(region, month)]
    return [
        {
            "_id": ":".join(filter(None, (job.name, region, period))),
            "job": job.name,
            "region": region,
            "period": QUARTERS[-1] if job.cadence is Cadence.QUARTERLY else period,
            "as_of": AS_OF,
            "timezone": "UTC",
            "run_id": f"scheduled__{period}",
            "documents": 10,
            "started_at": AS_OF,
            "published_at": AS_OF,
        }
        for job in JOBS
        for period in (months if job.mode is LoadMode.REPLACE_PERIOD else (None,))
    ]
