"""Small MEGs in which everything that could go wrong is likely: a hypothesis strategy of whole databases."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from bi_ops.catalog.periods import Cadence, Period
from tests.meg_factory import LONG_AGO, utc

Row = dict[str, Any]
Draw = Any

NAMES = ("", " ", "Aoife", "D'Arcy 🏥", "$set.a..b", "Ní \u0001 Dhónaill", "%s", 'a "b" \\c', "İ")
LENGTHS = (
    None,
    timedelta(),
    timedelta(microseconds=-1),
    timedelta(minutes=-3),
    timedelta(seconds=59, milliseconds=950),
    timedelta(seconds=61, microseconds=500_001),
    timedelta(minutes=10),
    timedelta(hours=24),
    timedelta(hours=24, microseconds=1),
    timedelta(hours=25),
)


def every_edge(at: datetime, zone: str) -> list[datetime]:
    """Every instant that a definition cuts time at, with the microseconds beside it."""
    edges = [at, *(at - timedelta(days=days) for days in (30, 90, 180, 365))]
    edges += [period.start for period in Period.containing(at, Cadence.MONTHLY, zone).trailing(3)]
    edges += [period.start for period in Period.containing(at, Cadence.QUARTERLY, zone).trailing(11)]
    return [edge + timedelta(microseconds=nudge) for edge in edges for nudge in (-1, 0, 1)]


def instants(at: datetime, zone: str) -> st.SearchStrategy[datetime]:
    """Instants on, just before and just after everything that a definition cuts time at."""
    windows = [at, *(at - timedelta(days=days) for days in (30, 90, 180, 365))]
    months = [period.start for period in Period.containing(at, Cadence.MONTHLY, zone).trailing(3)]
    quarters = [period.start for period in Period.containing(at, Cadence.QUARTERLY, zone).trailing(11)]
    # Clocks change in Dublin and in Sydney; a leap day.
    clocks = [utc(2026, 10, 25, 1), utc(2026, 3, 29, 1), utc(2026, 10, 3, 16), utc(2026, 4, 4, 16)]
    leap_day = [utc(2024, 2, 29, 12)]
    nudges = [timedelta(microseconds=n) for n in (-1000, -1, 0, 0, 0, 1)] + [timedelta(hours=n) for n in (-30, -1, 40)]
    edges = st.one_of(*map(st.sampled_from, (windows, windows, months, months, quarters, clocks + leap_day)))
    return st.builds(lambda edge, nudge: edge + nudge, edges, st.sampled_from(nudges))


@st.composite
def megs(draw: Draw, at: datetime, zone: str) -> dict[str, list[Row]]:
    """The rows of every table of a small MEG, by table, in an order that keeps the foreign keys."""
    first_id = draw(st.sampled_from([1, 1, -3, 2**63 - 500]))
    when, sometimes = instants(at, zone), st.one_of(st.none(), instants(at, zone))
    text, yes = st.sampled_from(NAMES), st.booleans()
    rarely = st.sampled_from([False, False, False, False, True])

    def rows(most: int, **columns: Any) -> list[Row]:
        count = draw(st.integers(0, most))
        return [
            {"id": first_id + number, **{name: draw(drawn) for name, drawn in columns.items()}}
            for number in range(count)
        ]

    def one_of(parents: list[Row], *, or_none: bool = False) -> st.SearchStrategy[Any]:
        choices = [parent["id"] for parent in parents] + ([None] if or_none else [])
        return st.sampled_from(choices)

    tables: dict[str, list[Row]] = {}

    def put(table: str, most: int, *parents: list[Row], **columns: Any) -> list[Row]:
        tables[table] = rows(most, **columns) if all(parents) else []
        return tables[table]

    born = st.one_of(st.just(LONG_AGO), when)
    groups = put("megforms_institutiongroup", 2, name=text)
    institutions = put(
        "megforms_institution",
        3,
        group_id=one_of(groups, or_none=True),
        name=text,
        country=st.sampled_from(["IE", "AU"]),
        is_active=yes,
        is_demo=rarely,
        handles_patient_data=yes,
        created_at=born,
    )
    for institution in institutions:
        institution["slug"] = f"institution{institution['id']}"
    departments = put("megforms_department", 3, institutions, institution_id=_lazy(institutions), name=text)
    users = put(
        "auth_user",
        12,
        first_name=text,
        last_name=text,
        is_active=yes,
        is_staff=rarely,
        last_login_at=sometimes,
        date_joined_at=born,
    )
    for user in users:
        user |= {"username": f"user{user['id']}", "email": "secret@example.org"}
        user["created_by_id"] = draw(one_of(users, or_none=True))
    wards = put(
        "megforms_ward",
        3,
        departments,
        department_id=_lazy(departments),
        name=text,
        is_active=yes,
        created_by_id=one_of(users, or_none=True),
        created_at=born,
    )
    auditors = [
        {
            "id": user["id"],
            "user_id": user["id"],
            "institution_id": draw(one_of(institutions)),
            "level": draw(st.sampled_from(["institution", "institution", "group", "global"])),
            "is_admin": draw(yes),
            "mfa_enabled": draw(yes),
        }
        for user in users
        if institutions and not draw(rarely)
    ]
    tables["megforms_auditor"] = auditors
    forms = put(
        "megforms_auditform",
        4,
        institutions,
        institution_id=_lazy(institutions),
        name=text,
        form_type=st.sampled_from(["audit", "survey"]),
        is_published=yes,
        collects_patient_data=yes,
        review_cycle_days=st.sampled_from([None, 0, 90]),
        created_at=born,
        archived_at=sometimes,
    )
    sessions = put(
        "megforms_auditsession",
        14,
        forms,
        form_id=_lazy(forms),
        ward_id=one_of(wards, or_none=True),
        auditor_id=one_of(auditors, or_none=True),
        platform=st.sampled_from(["web", "ios", "android", "public"]),
        started_at=when,
        ended_at=st.sampled_from(LENGTHS),
        submitted_at=st.one_of(when, when, when, st.none()),
        deleted_at=st.sampled_from([None, None, None, at]),
    )
    for session in sessions:
        length = session["ended_at"]
        session["ended_at"] = None if length is None else session["started_at"] + length
    gone = st.sampled_from([None, None, None, at])
    observations = put(
        "megforms_observation",
        30,
        sessions,
        session_id=_lazy(sessions),
        form_id=one_of(forms, or_none=True),
        created_at=when,
        deleted_at=gone,
    )
    form_of = {session["id"]: session["form_id"] for session in sessions}
    for observation in observations:
        if observation["form_id"] is None:  # as good as all of MEG's
            observation["form_id"] = form_of[observation["session_id"]]
    made = {"created_by_id": _lazy(users), "created_at": when, "deleted_at": gone}
    issues = put(
        "issues_issue",
        6,
        institutions,
        users,
        institution_id=_lazy(institutions),
        form_id=one_of(forms, or_none=True),
        closed_at=sometimes,
        **made,
    )
    edited = {"edited_by_id": _lazy(users), "edited_at": when}
    put("issues_issuechange", 8, issues, users, issue_id=_lazy(issues), **edited)
    put("documents_document", 14, institutions, users, institution_id=_lazy(institutions), name=text, **made)
    put("audits_auditschedule", 6, forms, users, form_id=_lazy(forms), **made)
    put("reviews_reviewedit", 8, observations, users, observation_id=_lazy(observations), **edited)
    tables["client_management_securitysettings"] = [
        {"institution_id": institution["id"], **_settings(draw)} for institution in institutions if not draw(rarely)
    ]
    return tables


def _lazy(parents: list[Row]) -> st.SearchStrategy[Any]:
    """One of the parents' ids; nothing is ever drawn from it where there are none."""
    return st.sampled_from([parent["id"] for parent in parents]) if parents else st.nothing()


def _settings(draw: Draw) -> Row:
    return {
        "sso_enforced": draw(st.sampled_from([True, False, None])),
        "mfa_required": draw(st.sampled_from([True, False, None])),
        "password_min_length": draw(st.sampled_from([None, 0, 7, 8])),
        "breached_password_check": draw(st.sampled_from([True, False, None])),
        "session_idle_minutes": draw(st.sampled_from([None, 0, 1, 60, 61])),
        "ip_allowlist": draw(st.sampled_from([None, [], ["192.0.2.0/24", ""]])),
        "data_retention_days": draw(st.sampled_from([None, 365])),
    }
