"""Small random sets of published documents, with months and quarters that some regions lack, and filters for them."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from bi_ops.reports.filters import Filters
from tests.meg_factory import utc
from tests.reports.live_rows import insert_live

Rows = dict[str, list[dict[str, Any]]]
Draw = Any

EXAMPLE_SETTINGS = settings(
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
"""Without shrinking: a smaller seed is no simpler case, and each step fills the database again."""
REGIONS = ("eu", "uk")
FORM_TYPES = ("audit", "survey")
NAMES = ("St Mary's", "Klinik am See", "Cottage Hospital")
AS_OF = utc(2026, 11, 1)
MONTHS = tuple(f"{2024 + number // 12}-{number % 12 + 1:02}" for number in range(8, 34))
"""Twenty-six months from 2024-09 to 2026-10: two years, and two months before them."""
QUARTERS = ("2024-Q4", "2025-Q1", "2025-Q2", "2025-Q3", "2025-Q4", "2026-Q1", "2026-Q2", "2026-Q3")
ACTIONS = ("audit_submitters", "issue_editors")
RISKS = ("dormant_users", "inactive_admins", "no_ip_allowlist", "short_passwords")
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
def published_documents(draw: Draw, small_clients: int = 0) -> Rows:
    """The documents of every collection, with the ledger; and in each region more clients, used in the last month.

    Most institutions with a history have no document of one quarter, as if all their forms were archived for it.
    """
    # Hypothesis chooses what is loaded; one seed the thousands of values, which it would draw slowly.
    random = Random(draw(st.integers(0, 2**32)))  # noqa: S311 - not a secret
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
            pause = random.choice((None, *quarters[1:-1]))
            for form in range(random.randrange(4)):
                form_id = 10 * number + form
                head = {**institution, "form_id": form_id, "form_type": random.choice(FORM_TYPES)}
                _add_form(rows, random, head, months, sessions, quarters, pause)
        for number in range(3, 3 + small_clients):
            institution = {"region": region, "institution_id": number + 1, "institution_name": f"Clinic {number + 1}"}
            _add_institution(rows, random, institution)
            head = {**institution, "form_id": 10 * number, "form_type": random.choice(FORM_TYPES)}
            _add_form(rows, random, head, months[-1:], sessions[-1:], quarters[-1:])
        _add_people(rows, random, region)
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
            "users_active_90d": random.choice((0, 20, 50, 60)),
            "wards": random.randrange(9),
            "submissions_90d": random.randrange(99),
            "created_at": as_of - timedelta(days=random.choice((10, 90, 91, 900))),
            "last_submitted_at": None if days is None else as_of - timedelta(days=days, hours=random.randrange(24)),
            "as_of": as_of,
        }
    )
    if random.random() > 0.3:
        score = random.randrange(13)
        level = "high" if score >= 6 else "medium" if score >= 3 else "low"
        risks = sorted(random.sample(RISKS, random.randrange(len(RISKS))))
        rows["security_risk_clients"].append(
            {
                **head,
                "_id": f"{head['region']}:{head['institution_id']:02}",
                "risk_score": score,
                "risk_level": level,
                "risks": risks,
                "users": random.choice((5, 50)),
                "unknown": [],
                "as_of": AS_OF,
            }
        )


def _add_people(rows: Rows, random: Random, region: str) -> None:
    homes = [row for row in rows["institutions"] if row["region"] == region]
    for action in ACTIONS if homes else ():
        counts = sorted((random.randrange(1, 9) for _ in range(random.randrange(11))), reverse=True)
        for rank, count in enumerate(counts, 1):
            home = random.choice(homes)
            person = {"user_name": f"Person {rank} {action} {region}", "count": count, "share_pct": count / 4}
            institution = {"institution_id": home["institution_id"], "institution_name": home["name"]}
            head = {"region": region, **institution, "action": action, "rank": rank}
            rows["top_users"].append({**head, **person, "last_at": AS_OF})


def _add_form(
    rows: Rows,
    random: Random,
    form: dict[str, Any],
    months: list[str],
    sessions: list[str],
    quarters: tuple[str, ...],
    pause: str | None = None,
) -> None:
    previous = random.choice((0, 3, 40, 120))
    for month in months:
        if random.random() > 0.1:
            most = random.choice((0, 3, 40, 40))  # each fourth form is not used in the month
            by_platform = {name: random.choice((0, most)) for name in ("web", "ios", "android", "public")}
            counts = {"submissions": sum(by_platform.values()), "previous_submissions": previous}
            rows["monthly_submissions"].append(
                {**form, "period": month, **counts, "submissions_by_platform": by_platform}
            )
            previous = counts["submissions"]
    rows["monthly_sessions"] += [{**form, "period": month, **_sessions(random)} for month in sessions]
    # A form that is created, or archived and restored, has no document of some quarters.
    submissions = [0 if quarter == pause else random.choice((0, 0, 5, 19, 20, 80)) for quarter in quarters]
    for number, quarter in enumerate(quarters):
        if quarter != pause and (random.random() > 0.1 or submissions[number]):
            counts = {"submissions": submissions[number], "status": _status(submissions[: number + 1])}
            rows["quarterly_form_churn"].append(
                {**form, "period": quarter, **counts, "is_archived": random.random() > 0.8}
            )
    rows["forms"].append(
        {
            **{name: form[name] for name in ("region", "institution_id", "institution_name", "form_id", "form_type")},
            "name": f"Form {form['form_id']}",
            "last_submitted_at": AS_OF,
            "submissions_90d": random.choice((0, 7)),
            "is_published": random.random() > 0.2,
            "is_archived": random.random() > 0.8,
        }
    )


def _sessions(random: Random) -> dict[str, Any]:
    sessions = random.choice((0, random.randrange(30)))
    invalid = random.randint(0, sessions)
    lengths = {"median": random.randrange(6_000) / 10, "p90": random.randrange(6_000, 20_000) / 10}
    return {
        "sessions": sessions,
        "observations": 3 * sessions,
        "active_days": min(sessions, random.randint(1, 28)),
        "invalid_durations": invalid,
        "duration_seconds": lengths if sessions > invalid else {"median": None, "p90": None},
    }


def _status(submissions: list[int]) -> str:
    """The status at the last of some quarters, of which the first is the form's first."""
    *earlier, last, now = [0, 0, *submissions]
    if now:
        return "retained" if last else "reactivated" if any(earlier) else "new"
    return "churned" if last else "dormant" if any(earlier) else "never_used"


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
            insert_live(database[name], *rows[name])
