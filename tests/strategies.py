"""Hypothesis strategies: small MEGs in which edge cases are likely, and streams of document ids."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from bi_ops.catalog.periods import Cadence, Period
from tests.meg_factory import LONG_AGO, utc

Row = dict[str, Any]
Draw = Any

INSTANTS = (utc(2026, 11, 1), utc(2026, 10, 1), utc(2027, 1, 1, 13, 37), utc(2024, 3, 1), utc(2026, 10, 4, 5))
ZONES = ("UTC", "Europe/Dublin", "Australia/Sydney")
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


def boundary_instants(as_of: datetime, zone: str) -> list[datetime]:
    """Every boundary in time of a definition, with the microseconds before and after it."""
    edges = [as_of, *(as_of - timedelta(days=days) for days in (30, 90, 180, 365))]
    edges += [period.start for period in Period.containing(as_of, Cadence.MONTHLY, zone).trailing(3)]
    edges += [period.start for period in Period.containing(as_of, Cadence.QUARTERLY, zone).trailing(11)]
    return [edge + timedelta(microseconds=nudge) for edge in edges for nudge in (-1, 0, 1)]


def instants(as_of: datetime, zone: str) -> st.SearchStrategy[datetime]:
    """Instants on, just before and just after each boundary in time of a definition."""
    windows = [as_of, *(as_of - timedelta(days=days) for days in (30, 90, 180, 365))]
    months = [period.start for period in Period.containing(as_of, Cadence.MONTHLY, zone).trailing(3)]
    quarters = [period.start for period in Period.containing(as_of, Cadence.QUARTERLY, zone).trailing(11)]
    # Clocks change in Dublin and in Sydney; a leap day.
    clocks = [utc(2026, 10, 25, 1), utc(2026, 3, 29, 1), utc(2026, 10, 3, 16), utc(2026, 4, 4, 16)]
    leap_day = [utc(2024, 2, 29, 12)]
    nudges = [timedelta(microseconds=n) for n in (-1000, -1, 0, 0, 0, 1)] + [timedelta(hours=n) for n in (-30, -1, 40)]
    edges = st.one_of(*map(st.sampled_from, (windows, windows, months, months, quarters, clocks + leap_day)))
    return st.builds(lambda edge, nudge: edge + nudge, edges, st.sampled_from(nudges))


@st.composite
def meg_databases(draw: Draw, as_of: datetime, zone: str) -> dict[str, list[Row]]:
    """The rows of a small MEG by table, in the order of the foreign keys."""
    first_id = draw(st.sampled_from([1, 1, -3, 2**63 - 500]))
    instant, instant_or_none = instants(as_of, zone), st.one_of(st.none(), instants(as_of, zone))
    text, boolean = st.sampled_from(NAMES), st.booleans()
    rarely_true = st.sampled_from([False, False, False, False, True])

    def rows(max_rows: int, **columns: Any) -> list[Row]:
        count = draw(st.integers(0, max_rows))
        return [
            {"id": first_id + number, **{name: draw(strategy) for name, strategy in columns.items()}}
            for number in range(count)
        ]

    def pick_parent(parents: list[Row], *, or_none: bool = False) -> st.SearchStrategy[Any]:
        choices = [parent["id"] for parent in parents] + ([None] if or_none else [])
        return st.sampled_from(choices)

    tables: dict[str, list[Row]] = {}

    def add_table(table: str, max_rows: int, *parents: list[Row], **columns: Any) -> list[Row]:
        tables[table] = rows(max_rows, **columns) if all(parents) else []
        return tables[table]

    created_at = st.one_of(st.just(LONG_AGO), instant)
    groups = add_table("megforms_institutiongroup", 2, name=text)
    institutions = add_table(
        "megforms_institution",
        3,
        group_id=pick_parent(groups, or_none=True),
        name=text,
        country=st.sampled_from(["IE", "AU"]),
        is_active=boolean,
        is_demo=rarely_true,
        handles_patient_data=boolean,
        created_at=created_at,
    )
    for institution in institutions:
        institution["slug"] = f"institution{institution['id']}"
    departments = add_table(
        "megforms_department", 3, institutions, institution_id=_pick_required_parent(institutions), name=text
    )
    users = add_table(
        "auth_user",
        12,
        first_name=text,
        last_name=text,
        is_active=boolean,
        is_staff=rarely_true,
        last_login_at=instant_or_none,
        date_joined_at=created_at,
    )
    for user in users:
        user |= {"username": f"user{user['id']}", "email": "secret@example.org"}
        user["created_by_id"] = draw(pick_parent(users, or_none=True))
    wards = add_table(
        "megforms_ward",
        3,
        departments,
        department_id=_pick_required_parent(departments),
        name=text,
        is_active=boolean,
        created_by_id=pick_parent(users, or_none=True),
        created_at=created_at,
    )
    auditors = [
        {
            "id": user["id"],
            "user_id": user["id"],
            "institution_id": draw(pick_parent(institutions)),
            "level": draw(st.sampled_from(["institution", "institution", "group", "global"])),
            "is_admin": draw(boolean),
            "mfa_enabled": draw(boolean),
        }
        for user in users
        if institutions and not draw(rarely_true)
    ]
    tables["megforms_auditor"] = auditors
    forms = add_table(
        "megforms_auditform",
        4,
        institutions,
        institution_id=_pick_required_parent(institutions),
        name=text,
        form_type=st.sampled_from(["audit", "survey"]),
        is_published=boolean,
        collects_patient_data=boolean,
        review_cycle_days=st.sampled_from([None, 0, 90]),
        created_at=created_at,
        archived_at=instant_or_none,
    )
    sessions = add_table(
        "megforms_auditsession",
        14,
        forms,
        form_id=_pick_required_parent(forms),
        ward_id=pick_parent(wards, or_none=True),
        auditor_id=pick_parent(auditors, or_none=True),
        platform=st.sampled_from(["web", "ios", "android", "public"]),
        started_at=instant,
        ended_at=st.sampled_from(LENGTHS),
        submitted_at=st.one_of(instant, instant, instant, st.none()),
        deleted_at=st.sampled_from([None, None, None, as_of]),
    )
    for session in sessions:
        length = session["ended_at"]
        session["ended_at"] = None if length is None else session["started_at"] + length
    deleted_at = st.sampled_from([None, None, None, as_of])
    observations = add_table(
        "megforms_observation",
        30,
        sessions,
        session_id=_pick_required_parent(sessions),
        form_id=pick_parent(forms, or_none=True),
        created_at=instant,
        deleted_at=deleted_at,
    )
    form_ids = {session["id"]: session["form_id"] for session in sessions}
    for observation in observations:
        if observation["form_id"] is None:  # as in nearly all of MEG's rows
            observation["form_id"] = form_ids[observation["session_id"]]
    creation = {"created_by_id": _pick_required_parent(users), "created_at": instant, "deleted_at": deleted_at}
    issues = add_table(
        "issues_issue",
        6,
        institutions,
        users,
        institution_id=_pick_required_parent(institutions),
        form_id=pick_parent(forms, or_none=True),
        closed_at=instant_or_none,
        **creation,
    )
    edit = {"edited_by_id": _pick_required_parent(users), "edited_at": instant}
    add_table("issues_issuechange", 8, issues, users, issue_id=_pick_required_parent(issues), **edit)
    add_table(
        "documents_document",
        14,
        institutions,
        users,
        institution_id=_pick_required_parent(institutions),
        name=text,
        **creation,
    )
    add_table("audits_auditschedule", 6, forms, users, form_id=_pick_required_parent(forms), **creation)
    add_table("reviews_reviewedit", 8, observations, users, observation_id=_pick_required_parent(observations), **edit)
    tables["client_management_securitysettings"] = [
        {"institution_id": institution["id"], **_settings(draw)}
        for institution in institutions
        if not draw(rarely_true)
    ]
    return tables


@st.composite
def meg_cases(draw: Draw) -> tuple[dict[str, list[Row]], datetime, str]:
    """The rows of a small MEG, the as-of instant and the time zone of a load of it."""
    as_of, zone = draw(st.sampled_from(INSTANTS)), draw(st.sampled_from(ZONES))
    return draw(meg_databases(as_of, zone)), as_of, zone


def document_ids() -> st.SearchStrategy[set[str]]:
    """Sets of any `_id`s."""
    return st.sets(st.text())


def _pick_required_parent(parents: list[Row]) -> st.SearchStrategy[Any]:
    """One of the parents' ids; a strategy that is never drawn from where there are none."""
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
