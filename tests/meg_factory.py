"""Fills a MEG row by row, and reads its raw rows back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from dev import demo_meg
from dev.embedded_stack import DatabaseServers

LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
TABLES = (
    "megforms_institutiongroup",
    "megforms_institution",
    "megforms_department",
    "auth_user",
    "megforms_ward",
    "megforms_auditor",
    "megforms_auditform",
    "megforms_auditsession",
    "megforms_observation",
    "issues_issue",
    "issues_issuechange",
    "documents_document",
    "audits_auditschedule",
    "reviews_reviewedit",
    "client_management_securitysettings",
)


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=timezone.utc)


def connect_as_reader(servers: DatabaseServers, database: str) -> Callable[[], psycopg.Connection[Any]]:
    server = servers.postgres
    return lambda: psycopg.connect(
        host=server.host,
        port=server.port,
        dbname=database,
        user=demo_meg.READER_ROLE,
        password=servers.secret["reader"],
    )


def raw_tables(connection: psycopg.Connection[Any]) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, as dicts."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return {
            table: cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
            for table in TABLES
        }


class MegFactory:
    """Empties a MEG and fills it: each method adds a row, with defaults for the columns that are not given."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._next_id = count(100_001)  # bulk_forms takes the small ids
        connection.execute(f"TRUNCATE {', '.join(TABLES)}")

    def add(self, table: str, **columns: Any) -> int:
        row_id: int = columns.setdefault("id", next(self._next_id))
        self.connection.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join(map(sql.Placeholder, columns)),
            ),
            columns,
        )
        return row_id

    def institution(self, **columns: Any) -> int:
        number = next(self._next_id)
        defaults = {
            "id": number,
            "name": f"Institution {number}",
            "slug": f"institution-{number}",
            "country": "IE",
            "is_active": True,
            "is_demo": False,
            "handles_patient_data": True,
            "created_at": LONG_AGO,
        }
        return self.add("megforms_institution", **{**defaults, **columns})

    def form(self, institution: int, **columns: Any) -> int:
        number = next(self._next_id)
        defaults = {
            "id": number,
            "institution_id": institution,
            "name": f"Form {number}",
            "form_type": "audit",
            "is_published": True,
            "collects_patient_data": False,
            "created_at": LONG_AGO,
        }
        return self.add("megforms_auditform", **{**defaults, **columns})

    def user(self, **columns: Any) -> int:
        number = next(self._next_id)
        defaults = {
            "id": number,
            "username": f"user{number}",
            "first_name": "Aoife",
            "last_name": "Byrne",
            "email": f"user{number}@example.org",
            "is_active": True,
            "is_staff": False,
            "date_joined_at": LONG_AGO,
        }
        return self.add("auth_user", **{**defaults, **columns})

    def auditor(self, institution: int, *, user: int | None = None, **columns: Any) -> int:
        defaults = {"level": "institution", "is_admin": False, "mfa_enabled": True}
        user = self.user() if user is None else user
        return self.add("megforms_auditor", institution_id=institution, user_id=user, **{**defaults, **columns})

    def ward(self, institution: int) -> int:
        department = self.add("megforms_department", institution_id=institution, name="Medicine")
        return self.add("megforms_ward", department_id=department, name="Ward", is_active=True, created_at=LONG_AGO)

    def session(self, form: int, submitted_at: datetime | None, *, observations: int = 1, **columns: Any) -> int:
        started_at = (submitted_at or LONG_AGO) - timedelta(minutes=10)
        defaults = {"form_id": form, "platform": "web", "started_at": started_at, "submitted_at": submitted_at}
        session = self.add("megforms_auditsession", **{**defaults, **columns})
        for _ in range(observations):
            self.observation(session, form)
        return session

    def observation(self, session: int, form: int, **columns: Any) -> int:
        return self.add("megforms_observation", session_id=session, form_id=form, created_at=LONG_AGO, **columns)

    def bulk_forms(self, count: int) -> int:
        """Add forms with ids from 1 on, each with one submission on 5 October 2026; returns their institution's id."""
        institution = self.institution(id=1_000_000)
        self.connection.execute(
            "INSERT INTO megforms_auditform"
            " SELECT f, %s, 'Form ' || f, 'audit', true, false, NULL, %s FROM generate_series(1, %s) AS f",
            (institution, LONG_AGO, count),
        )
        self.connection.execute(
            "INSERT INTO megforms_auditsession"
            " SELECT f, f, NULL, NULL, 'public', %(at)s, %(at)s, %(at)s FROM generate_series(1, %(count)s) AS f",
            {"at": utc(2026, 10, 5), "count": count},
        )
        self.connection.execute(
            "INSERT INTO megforms_observation SELECT f, f, f, %s FROM generate_series(1, %s) AS f",
            (utc(2026, 10, 5), count),
        )
        return institution
