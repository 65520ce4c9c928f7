"""What the SQL of the jobs expects of each relation in include/sql/source/: the contract that bi_doctor checks.

Each relation has these columns, of these types, and one row for each value of its key.
"""

from __future__ import annotations

from collections.abc import Mapping

from bi_ops.jobs import Kind

_WHO_AND_WHEN = {"created_by": Kind.INTEGER, "created_at": Kind.TIME}

RELATIONS: Mapping[str, Mapping[str, Kind]] = {
    "department": {"department_id": Kind.INTEGER, "institution_id": Kind.INTEGER},
    "document": {"document_id": Kind.INTEGER, **_WHO_AND_WHEN},
    "form": {
        "form_id": Kind.INTEGER,
        "form_name": Kind.TEXT,
        "form_type": Kind.TEXT,
        "is_published": Kind.BOOLEAN,
        "collects_patient_data": Kind.BOOLEAN,
        "review_cycle_days": Kind.INTEGER,
        "created_at": Kind.TIME,
        "archived_at": Kind.TIME,
        "institution_id": Kind.INTEGER,
        "institution_name": Kind.TEXT,
    },
    "institution": {
        "institution_id": Kind.INTEGER,
        "institution_name": Kind.TEXT,
        "slug": Kind.TEXT,
        "group_name": Kind.TEXT,
        "country": Kind.TEXT,
        "is_active": Kind.BOOLEAN,
        "handles_patient_data": Kind.BOOLEAN,
        "created_at": Kind.TIME,
    },
    "issue": {"issue_id": Kind.INTEGER, **_WHO_AND_WHEN},
    "issue_change": {"issue_change_id": Kind.INTEGER, "edited_by": Kind.INTEGER, "edited_at": Kind.TIME},
    "review_edit": {"review_edit_id": Kind.INTEGER, "edited_by": Kind.INTEGER, "edited_at": Kind.TIME},
    "schedule": {"schedule_id": Kind.INTEGER, "form_id": Kind.INTEGER, **_WHO_AND_WHEN},
    "security_settings": {
        "institution_id": Kind.INTEGER,
        "sso_enforced": Kind.BOOLEAN,
        "mfa_required": Kind.BOOLEAN,
        "password_min_length": Kind.INTEGER,
        "breached_password_check": Kind.BOOLEAN,
        "session_idle_minutes": Kind.INTEGER,
        "ip_allowlist": Kind.TEXTS,
        "data_retention_days": Kind.INTEGER,
    },
    "session": {
        "session_id": Kind.INTEGER,
        "form_id": Kind.INTEGER,
        "ward_id": Kind.INTEGER,
        "auditor_id": Kind.INTEGER,
        "platform": Kind.TEXT,
        "started_at": Kind.TIME,
        "ended_at": Kind.TIME,
        "submitted_at": Kind.TIME,
    },
    "submission": {
        "observation_id": Kind.INTEGER,
        "session_id": Kind.INTEGER,
        "form_id": Kind.INTEGER,
        "ward_id": Kind.INTEGER,
        "auditor_id": Kind.INTEGER,
        "platform": Kind.TEXT,
        "submitted_at": Kind.TIME,
    },
    "user": {
        "user_id": Kind.INTEGER,
        "auditor_id": Kind.INTEGER,
        "user_name": Kind.TEXT,
        "is_active": Kind.BOOLEAN,
        "is_admin": Kind.BOOLEAN,
        "mfa_enabled": Kind.BOOLEAN,
        "last_login_at": Kind.TIME,
        "joined_at": Kind.TIME,
        "created_by": Kind.INTEGER,
        "institution_id": Kind.INTEGER,
        "institution_name": Kind.TEXT,
    },
    "ward": {"ward_id": Kind.INTEGER, "institution_id": Kind.INTEGER, "is_active": Kind.BOOLEAN, **_WHO_AND_WHEN},
}
"""The columns of each relation, by its file's name, with what they hold."""

KEYS: Mapping[str, str] = {
    "department": "department_id",
    "document": "document_id",
    "form": "form_id",
    "institution": "institution_id",
    "issue": "issue_id",
    "issue_change": "issue_change_id",
    "review_edit": "review_edit_id",
    "schedule": "schedule_id",
    "security_settings": "institution_id",
    "session": "session_id",
    "submission": "observation_id",
    "user": "user_id",
    "ward": "ward_id",
}
"""The column of each relation that no two of its rows share; were it doubled, counts would be too high."""

TYPES: Mapping[Kind, frozenset[str]] = {
    Kind.INTEGER: frozenset({"int2", "int4", "int8"}),
    Kind.NUMBER: frozenset({"numeric", "float4", "float8"}),
    Kind.TEXT: frozenset({"text", "varchar", "bpchar"}),
    Kind.TEXTS: frozenset({"text[]", "varchar[]"}),
    Kind.BOOLEAN: frozenset({"bool"}),
    Kind.TIME: frozenset({"timestamptz"}),
}
"""PostgreSQL's types that hold each kind."""


def broken_promises(relation: str, columns: Mapping[str, str]) -> list[str]:
    """What a relation lacks of its contract.

    Args:
        relation: Its name.
        columns: The columns that it has, with PostgreSQL's names of their types.

    Returns:
        One line for each column that is missing or of another type; empty where all is well.
    """
    broken = []
    for name, kind in RELATIONS[relation].items():
        found = columns.get(name, "").partition("(")[0]
        if name not in columns:
            broken.append(f"{name} is missing")
        elif found not in TYPES[kind]:
            broken.append(f"{name} is {found}, not {' or '.join(sorted(TYPES[kind]))}")
    return broken
