"""Documents that make a page awkward: missing months, a month of one region only, long names with equal beginnings."""

from __future__ import annotations

from typing import Any

from bi_ops.catalog.jobs import JOBS, LoadMode
from bi_ops.mongo.store import Store
from tests.meg_factory import utc
from tests.reports.live_rows import insert_live

LOADED_MONTHS = {"eu": ("2026-05", "2026-08", "2026-09", "2026-10"), "uk": ("2026-08", "2026-09")}
"""No region has 2026-06 and 2026-07; only eu has 2026-05 and 2026-10."""
QUARTERS = {"eu": ("2026-Q1", "2026-Q2", "2026-Q3"), "uk": ("2026-Q1", "2026-Q3")}
PARTIAL_PERIODS = {
    "monthly_submissions": {"2026-05": "uk", "2026-10": "uk"},
    "monthly_sessions": {"2026-05": "uk", "2026-10": "uk"},
    "quarterly_form_churn": {"2026-Q2": "uk"},
}
"""The periods of each collection that one region lacks."""
LATEST = {"monthly_submissions": "2026-10", "quarterly_form_churn": "2026-Q3"}
HOSPITAL = "Hôpital Saint-André Nursing Home of the Sisters of Mercy, "
INSTITUTIONS = {
    "eu": [f"{HOSPITAL}North", f"{HOSPITAL}South", "Klinik am See", *(f"Clinic {number}" for number in range(4, 21))],
    "uk": ["St Mary's", "Royal Infirmary", "Cottage Hospital"],
}
QUIET_INSTITUTION = "Cottage Hospital"
"""None of its people is among the ten most active."""
FORM_TYPES = ("audit", "checklist", "survey")
PLATFORMS = ("web", "ios", "android", "public")
ACTIONS = ("sessions_submitted", "issues_created")


def insert_page_data(store: Store) -> None:
    """Insert the documents of two regions, with their rows in the ledger."""
    for region, names in INSTITUTIONS.items():
        for number, name in enumerate(names, start=1):
            institution = {"region": region, "institution_id": number, "institution_name": name}
            for period in LOADED_MONTHS[region]:
                _insert_month(store, institution, period)
            _insert_quarters(store, institution)
            _insert_snapshots(store, institution, name)
        for action in ACTIONS:
            for rank in range(1, 11):
                person = {"user_id": rank, "user_name": f"Person {rank} of {region}", "count": 200 - 7 * rank}
                insert_live(
                    store.live["top_users"],
                    {
                        "region": region,
                        "action": action,
                        "rank": rank,
                        **person,
                        "institution_name": names[rank % 2],
                        "share_pct": 2.5,
                    },
                )
        _insert_ledger(store, region)


def _insert_month(store: Store, institution: dict[str, Any], period: str) -> None:
    number = institution["institution_id"]
    for place, form_type in enumerate(FORM_TYPES):
        form = {
            **institution,
            "_id": f"{institution['region']}:{period}:{number}-{place}",
            "period": period,
            "form_id": 10 * number + place,
            "form_type": form_type,
        }
        submissions = 40 * number + 10 * place + int(period[-2:])
        by_platform = dict.fromkeys(PLATFORMS, submissions // 4)
        insert_live(
            store.live["monthly_submissions"],
            {
                **form,
                "submissions": submissions,
                "previous_submissions": 45 * number,
                "submissions_by_platform": by_platform,
            },
        )
        insert_live(
            store.live["monthly_sessions"],
            {
                **form,
                "sessions": submissions // 3,
                "observations": submissions,
                "active_days": 3 + place,
                "invalid_durations": 0,
                "duration_seconds": {"median": 600 + 10 * number, "p90": 1500},
            },
        )


def _insert_quarters(store: Store, institution: dict[str, Any]) -> None:
    statuses = ("retained", "retained", "new", "churned", "dormant", "never_used")
    for place, period in enumerate(QUARTERS[institution["region"]]):
        for form, form_type in enumerate(FORM_TYPES):
            status = statuses[(institution["institution_id"] + place + form) % len(statuses)]
            insert_live(
                store.live["quarterly_form_churn"],
                {
                    **institution,
                    "period": period,
                    "form_id": form,
                    "form_type": form_type,
                    "status": status,
                    "is_archived": False,
                    "submissions": 5 if status in ("retained", "new") else 0,
                },
            )


def _insert_snapshots(store: Store, institution: dict[str, Any], name: str) -> None:
    number = institution["institution_id"]
    head = {"region": institution["region"], "institution_id": number, "name": name}
    insert_live(
        store.live["institutions"],
        {
            **head,
            "is_active": True,
            "users": 3 * number,
            "wards": number,
            "submissions_90d": 50 * number,
            "users_active_90d": 4 if number == 1 else 2 * number,
        },
    )
    score = (number * 5) % 13
    insert_live(
        store.live["security_risk_clients"],
        {
            **head,
            "risk_score": score,
            "risk_level": ("low", "medium", "high")[min(2, score // 4)],
            "users": number,
            "risks": ["no_sso", "no_mfa", "short_passwords"][: score % 3 + 1],
        },
    )
    for form, form_type in enumerate(FORM_TYPES):
        insert_live(
            store.live["forms"],
            {
                **institution,
                "form_id": form,
                "form_type": form_type,
                "is_published": True,
                "is_archived": False,
                "submissions_90d": 0 if form == number % 2 else 9,
            },
        )


def _insert_ledger(store: Store, region: str) -> None:
    for job in JOBS:
        for period in LOADED_MONTHS[region] if job.mode is LoadMode.REPLACE_PERIOD else (None,):
            row = {
                "_id": ":".join(filter(None, (job.name, region, period))),
                "job": job.name,
                "region": region,
                "period": period,
                "as_of": utc(2026, 11, 1),
                "timezone": "UTC",
                "run_id": f"scheduled__{period}",
                "documents": 10,
                "started_at": utc(2026, 11, 1, 1),
                "published_at": utc(2026, 11, 1, 1, 2),
            }
            store.ledger.insert_one(row)
