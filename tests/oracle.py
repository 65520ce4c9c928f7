"""The definitions once more, in plain Python over the raw rows: what the SQL under test must agree with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from bi_ops.periods import Period

Row = dict[str, Any]
Tables = Mapping[str, list[Row]]


class Oracle:
    """One MEG's raw rows, with the exclusions applied by walking from row to row."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._by_id = {name: {row.get("id"): row for row in rows} for name, rows in tables.items()}

    def monthly_submissions(self, region: str, period: Period) -> dict[str, Row]:
        """The documents of a month by `_id`, without the load stamps."""
        submissions = list(self._submissions(period.start, period.end))
        before = list(self._submissions(period.before().start, period.start))
        documents = {}
        for form in self._tables["megforms_auditform"]:
            mine = [session for session in submissions if session["form_id"] == form["id"]]
            previous = sum(session["form_id"] == form["id"] for session in before)
            alive = form["created_at"] < period.end and not (form["archived_at"] and form["archived_at"] < period.start)
            if self._is_client(form["institution_id"]) and (alive or mine):
                document = self._submission_document(form, mine, previous)
                documents[f"{region}:{period.name}:{form['id']}"] = {
                    "region": region,
                    "period": period.name,
                    "period_start": period.start.astimezone(timezone.utc),
                    "schema_version": 1,
                    **document,
                }
        return documents

    def _submission_document(self, form: Row, mine: list[Row], previous: int) -> Row:
        platforms = Counter(session["platform"] for session in mine)
        times = [_bson_time(session["submitted_at"]) for session in mine]
        growth = Decimal(100 * (len(mine) - previous)) / previous if previous else None
        return {
            "institution_id": form["institution_id"],
            "institution_name": self._by_id["megforms_institution"][form["institution_id"]]["name"],
            "form_id": form["id"],
            "form_name": form["name"],
            "form_type": form["form_type"],
            "submissions": len(mine),
            "submitters": len(_distinct(session["auditor_id"] for session in mine)),
            "wards": len(_distinct(session["ward_id"] for session in mine)),
            "submissions_by_platform": {name: platforms[name] for name in ("web", "ios", "android", "public")},
            "first_submitted_at": min(times, default=None),
            "last_submitted_at": max(times, default=None),
            "previous_submissions": previous,
            "change_pct": None if growth is None else float(growth.quantize(Decimal("0.01"), ROUND_HALF_UP)),
        }

    def _submissions(self, start: datetime, end: datetime) -> Iterable[Row]:
        """The session of each observation that counts, as often as it has observations."""
        for observation in self._tables["megforms_observation"]:
            session = self._by_id["megforms_auditsession"][observation["session_id"]]
            submitted_at = session["submitted_at"]
            if observation["deleted_at"] or not submitted_at or not start <= submitted_at < end:
                continue
            if self._counts(session):
                yield session

    def _counts(self, session: Row) -> bool:
        form = self._by_id["megforms_auditform"][session["form_id"]]
        return (
            session["deleted_at"] is None
            and self._is_client(form["institution_id"])
            and (session["auditor_id"] is None or self._is_clients_auditor(session["auditor_id"]))
            and (session["ward_id"] is None or self._is_client(self._institution_of_ward(session["ward_id"])))
        )

    def _is_client(self, institution_id: int) -> bool:
        return not self._by_id["megforms_institution"][institution_id]["is_demo"]

    def _is_clients_auditor(self, auditor_id: int) -> bool:
        auditor = self._by_id["megforms_auditor"][auditor_id]
        is_staff = self._by_id["auth_user"][auditor["user_id"]]["is_staff"] or auditor["level"] == "global"
        return not is_staff and self._is_client(auditor["institution_id"])

    def _institution_of_ward(self, ward_id: int) -> int:
        department = self._by_id["megforms_department"][self._by_id["megforms_ward"][ward_id]["department_id"]]
        institution_id: int = department["institution_id"]
        return institution_id


def _distinct(values: Iterable[Any]) -> set[Any]:
    return set(values) - {None}


def _bson_time(instant: datetime) -> datetime:
    """In UTC and whole milliseconds, as BSON keeps a date."""
    utc = instant.astimezone(timezone.utc)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
