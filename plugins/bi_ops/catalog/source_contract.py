"""The columns, types and key that each relation in include/sql/source/ must have; bi_doctor checks them.

The jobs' SQL relies on these columns and types, and on one row for each value of the key.
"""

from __future__ import annotations

from collections.abc import Mapping

from bi_ops.catalog.jobs import FieldType

_CREATION = {"created_by": FieldType.INTEGER, "created_at": FieldType.TIMESTAMP}

SOURCE_CONTRACT: Mapping[str, Mapping[str, FieldType]] = {
    "department": {"department_id": FieldType.INTEGER, "institution_id": FieldType.INTEGER},
    "document": {"document_id": FieldType.INTEGER, **_CREATION},
    "form": {
        "form_id": FieldType.INTEGER,
        "form_name": FieldType.TEXT,
        "form_type": FieldType.TEXT,
        "is_published": FieldType.BOOLEAN,
        "collects_patient_data": FieldType.BOOLEAN,
        "review_cycle_days": FieldType.INTEGER,
        "created_at": FieldType.TIMESTAMP,
        "archived_at": FieldType.TIMESTAMP,
        "institution_id": FieldType.INTEGER,
        "institution_name": FieldType.TEXT,
    },
    "institution": {
        "institution_id": FieldType.INTEGER,
        "institution_name": FieldType.TEXT,
        "slug": FieldType.TEXT,
        "group_name": FieldType.TEXT,
        "country": FieldType.TEXT,
        "is_active": FieldType.BOOLEAN,
        "handles_patient_data": FieldType.BOOLEAN,
        "created_at": FieldType.TIMESTAMP,
    },
    "issue": {"issue_id": FieldType.INTEGER, **_CREATION},
    "issue_change": {
        "issue_change_id": FieldType.INTEGER,
        "edited_by": FieldType.INTEGER,
        "edited_at": FieldType.TIMESTAMP,
    },
    "review_edit": {
        "review_edit_id": FieldType.INTEGER,
        "edited_by": FieldType.INTEGER,
        "edited_at": FieldType.TIMESTAMP,
    },
    "schedule": {"schedule_id": FieldType.INTEGER, "form_id": FieldType.INTEGER, **_CREATION},
    "security_settings": {
        "institution_id": FieldType.INTEGER,
        "sso_enforced": FieldType.BOOLEAN,
        "mfa_required": FieldType.BOOLEAN,
        "password_min_length": FieldType.INTEGER,
        "breached_password_check": FieldType.BOOLEAN,
        "session_idle_minutes": FieldType.INTEGER,
        "ip_allowlist": FieldType.TEXT_ARRAY,
        "data_retention_days": FieldType.INTEGER,
    },
    "session": {
        "session_id": FieldType.INTEGER,
        "form_id": FieldType.INTEGER,
        "ward_id": FieldType.INTEGER,
        "auditor_id": FieldType.INTEGER,
        "platform": FieldType.TEXT,
        "started_at": FieldType.TIMESTAMP,
        "ended_at": FieldType.TIMESTAMP,
        "submitted_at": FieldType.TIMESTAMP,
    },
    "submission": {
        "observation_id": FieldType.INTEGER,
        "session_id": FieldType.INTEGER,
        "form_id": FieldType.INTEGER,
        "ward_id": FieldType.INTEGER,
        "auditor_id": FieldType.INTEGER,
        "platform": FieldType.TEXT,
        "submitted_at": FieldType.TIMESTAMP,
    },
    "user": {
        "user_id": FieldType.INTEGER,
        "auditor_id": FieldType.INTEGER,
        "user_name": FieldType.TEXT,
        "is_active": FieldType.BOOLEAN,
        "is_admin": FieldType.BOOLEAN,
        "mfa_enabled": FieldType.BOOLEAN,
        "last_login_at": FieldType.TIMESTAMP,
        "joined_at": FieldType.TIMESTAMP,
        "created_by": FieldType.INTEGER,
        "institution_id": FieldType.INTEGER,
        "institution_name": FieldType.TEXT,
    },
    "ward": {
        "ward_id": FieldType.INTEGER,
        "institution_id": FieldType.INTEGER,
        "is_active": FieldType.BOOLEAN,
        **_CREATION,
    },
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
"""The key column of each relation; duplicate values would make counts too high."""

POSTGRES_TYPES: Mapping[FieldType, frozenset[str]] = {
    FieldType.INTEGER: frozenset({"int2", "int4", "int8"}),
    FieldType.NUMBER: frozenset({"numeric", "float4", "float8"}),
    FieldType.TEXT: frozenset({"text", "varchar", "bpchar"}),
    FieldType.TEXT_ARRAY: frozenset({"text[]", "varchar[]"}),
    FieldType.BOOLEAN: frozenset({"bool"}),
    FieldType.TIMESTAMP: frozenset({"timestamptz"}),
}
"""The PostgreSQL types allowed for each field type."""


def contract_violations(relation: str, columns: Mapping[str, str]) -> list[str]:
    """The violations of a relation's contract.

    Args:
        relation: The relation's name.
        columns: Its columns, with PostgreSQL's names of their types.

    Returns:
        One line for each column that is missing or has another type.
    """
    violations = []
    for name, field_type in SOURCE_CONTRACT[relation].items():
        type_name = columns.get(name, "").partition("(")[0]
        allowed = POSTGRES_TYPES[field_type]
        if name not in columns:
            violations.append(f"{name} is missing")
        elif type_name not in allowed:
            violations.append(f"{name} is {type_name}, not {' or '.join(sorted(allowed))}")
    return violations
