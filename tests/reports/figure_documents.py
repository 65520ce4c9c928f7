"""Small random sets of published documents, with months and quarters that some regions lack, and filters for them."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st

from bi_ops.reports.filters import Filters
from tests.meg_factory import utc

Rows = dict[str, list[dict[str, Any]]]
Draw = Any

REGIONS = ("eu", "uk")
FORM_TYPES = ("audit", "survey")
NAMES = ("St Mary's", "Klinik am See", "Cottage Hospital")
AS_OF = utc(2026, 11, 1)
MONTHS = tuple(f"{2024 + number // 12}-{number % 12 + 1:02}" for number in range(8, 34))
"""Twenty-six months from 2024-09 to 2026-10: two years, and two months before them."""
QUARTERS = ("2024-Q4", "2025-Q1", "2025-Q2", "2025-Q3", "2025-Q4", "2026-Q1", "2026-Q2", "2026-Q3")
STATUSES = ("retained", "retained", "churned", "churned", "new", "reactivated", "dormant", "never_used")
COLLECTIONS = (
    "monthly_submissions",
    "monthly_sessions",
    "quarterly_form_churn",
    "institutions",
    "forms",
    "security_risk_clients",
    "top_users",
    "bi_loads",
)


@st.composite
def published_documents(draw: Draw) -> Rows:
    """The documents of every collection, with the ledger."""
    # Hypothesis chooses what is loaded; one seed the thousands of values, which it would draw slowly.
    random = Random(draw(st.integers(0, 2**32)))  # noqa: S311
    rows: Rows = {name: [] for name in COLLECTIONS}
    for region in draw(st.sampled_from([REGIONS, REGIONS, REGIONS[:1]])):
        lacking = draw(st.sets(st.sampled_from(MONTHS), max_size=2)) | draw(
            st.sampled_from([set(), set(), set(MONTHS[-1:]), set(MONTHS[:1])])
        )
        months = [month for month in MONTHS if month not in lacking]
        sessions = [month for month in months if random.random() > 0.05]
        quarters = QUARTERS[: draw(st.sampled_from([8, 8, 8, 7, 1, 0]))]
        for job, periods in (("monthly_submissions", months), ("monthly_sessions", sessions)):
            rows["bi_loads"] += [ledger_row(job, region, period) for period in periods]
        rows["bi_loads"] += [ledger_row("quarterly_form_churn", region, name) for name in quarters[-1:]]
        for number in range(draw(st.integers(0, 3))):
            institution = {"region": region, "institution_id": number + 1, "institution_name": NAMES[number]}
            _add_institution(rows, random, institution)
            for form in range(random.randrange(4)):
                form_id = 10 * number + form
                head = {**institution, "form_id": form_id, "form_type": random.choice(FORM_TYPES)}
                _add_form(rows, random, head, months, sessions, quarters)
    return rows


def ledger_row(job: str, region: str, period: str | None) -> dict[str, Any]:
    """A row of the ledger as publish writes it."""
    return {
        "_id": ":".join(filter(None, (job, region, period))),
        "job": job,
        "region": region,
        "period": period,
        "as_of": AS_OF,
        "run_id": "scheduled__1",
        "documents": 1,
        "started_at": AS_OF,
        "published_at": AS_OF,
    }


def _add_institution(rows: Rows, random: Random, institution: dict[str, Any]) -> None:
    head = {
        "region": institution["region"],
        "institution_id": institution["institution_id"],
        "name": institution["institution_name"],
    }
    as_of = AS_OF - timedelta(days=random.choice((0, 7)))
    days = random.choice((None, 0, 1, 29, 30, 59, 60, 400))
    rows["institutions"].append(
        {
            **head,
            "country": random.choice(("IE", "GB")),
            "is_active": random.random() > 0.2,
            "users": random.choice((0, 49, 50, 249, 250)),
            "users_active_30d": random.randrange(50),
            "created_at": as_of - timedelta(days=random.choice((10, 90, 91, 900))),
            "last_submitted_at": None if days is None else as_of - timedelta(days=days, hours=random.randrange(24)),
            "as_of": as_of,
        }
    )
    if random.random() > 0.3:
        score = random.randrange(13)
        level = "high" if score >= 6 else "medium" if score >= 3 else "low"
        rows["security_risk_clients"].append(
            {**head, "risk_score": score, "risk_level": level, "risks": [], "unknown": [], "as_of": AS_OF}
        )
    for rank in range(1, random.randrange(1, 4)):
        name = f"Person {rank} of {head['name']}"
        person = {"user_name": name, "count": 9 - rank, "share_pct": 1.5, "last_at": AS_OF}
        rows["top_users"].append({**institution, "action": "audit_submitters", "rank": rank, **person})


def _add_form(
    rows: Rows,
    random: Random,
    form: dict[str, Any],
    months: list[str],
    sessions: list[str],
    quarters: tuple[str, ...],
) -> None:
    for month in months:
        if random.random() > 0.1:
            by_platform = {name: random.choice((0, 0, 3, 40)) for name in ("web", "ios", "android", "public")}
            submissions = sum(by_platform.values())
            rows["monthly_submissions"].append(
                {**form, "period": month, "submissions": submissions, "submissions_by_platform": by_platform}
            )
    rows["monthly_sessions"] += [{**form, "period": month, "sessions": random.randrange(30)} for month in sessions]
    rows["quarterly_form_churn"] += [
        {
            **form,
            "period": quarter,
            "submissions": random.choice((0, 5, 19, 20, 80)),
            "status": random.choice(STATUSES),
        }
        for quarter in quarters
    ]
    rows["forms"].append(
        {
            **{name: form[name] for name in ("region", "institution_id", "institution_name", "form_id", "form_type")},
            "name": f"Form {form['form_id']}",
            "last_submitted_at": AS_OF,
            "submissions_90d": random.randrange(9),
            "is_published": True,
            "is_archived": random.random() > 0.8,
        }
    )


@st.composite
def filters(draw: Draw) -> Filters:
    """Filters, most of them empty."""
    first, last = sorted(draw(st.tuples(st.sampled_from(MONTHS), st.sampled_from(MONTHS))))
    return Filters(
        draw(st.sampled_from([(), (), (), ("eu",), ("uk",)])),
        draw(st.sampled_from([(), (), (), NAMES[:1], NAMES[:2]])),
        draw(st.sampled_from([(), (), (), ("audit",), FORM_TYPES])),
        draw(st.sampled_from(["", "", first])),
        draw(st.sampled_from(["", "", last])),
    )


def insert_rows(database: Any, rows: Rows) -> None:
    """Replace the documents of every collection."""
    for name in COLLECTIONS:
        database[name].delete_many({})
        if rows[name]:
            database[name].insert_many([dict(row) for row in rows[name]])
