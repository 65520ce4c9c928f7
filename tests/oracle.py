"""The oracle: the collections' definitions in plain Python over raw rows, with which the SQL is compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from bi_ops.catalog.periods import Period
from tests.oracle_helpers import (
    Row,
    ago,
    bson_time,
    by_form,
    distinct,
    duration,
    exact,
    inactive,
    is_alive,
    is_valid,
    microseconds,
    percentile,
    ratio,
    risks,
    rounded,
    since,
    status,
    times,
)

Tables = Mapping[str, list[Row]]
Documents = dict[str, Row]

SETTINGS = (
    "sso_enforced",
    "mfa_required",
    "password_min_length",
    "breached_password_check",
    "session_idle_minutes",
    "ip_allowlist",
    "data_retention_days",
)


class Oracle:
    """One region's MEG as raw rows, with the exclusions applied by walking from row to row.

    Each job's method gives its documents by `_id`, without the load metadata.
    """

    def __init__(self, tables: Tables, region: str = "eu", zone: str = "UTC") -> None:
        self._tables = tables
        self._region = region
        self._zone = zone
        self._rows = {name: {row.get("id"): row for row in rows} for name, rows in tables.items()}
        self._auditor_of_user = {row["user_id"]: row for row in tables["megforms_auditor"]}
        self._sessions = [row for row in tables["megforms_auditsession"] if self._session_counts(row)]
        self._observations = Counter(
            row["session_id"] for row in tables["megforms_observation"] if self._observation_counts(row)
        )

    # --- exclusions

    def _is_client(self, institution_id: int) -> bool:
        return not self._rows["megforms_institution"][institution_id]["is_demo"]

    def _is_clients_user(self, user_id: int | None) -> bool:
        auditor = self._auditor_of_user.get(user_id)
        return bool(
            auditor
            and auditor["level"] != "global"
            and not self._rows["auth_user"][user_id]["is_staff"]
            and self._is_client(auditor["institution_id"])
        )

    def _is_clients_form(self, form_id: int) -> bool:
        return self._is_client(self._rows["megforms_auditform"][form_id]["institution_id"])

    def _institution_of_ward(self, ward: Row) -> int:
        institution_id: int = self._rows["megforms_department"][ward["department_id"]]["institution_id"]
        return institution_id

    def _session_counts(self, session: Row) -> bool:
        auditor_id, ward_id = session["auditor_id"], session["ward_id"]
        return (
            session["submitted_at"] is not None
            and session["deleted_at"] is None
            and self._is_clients_form(session["form_id"])
            and (auditor_id is None or self._is_clients_user(self._rows["megforms_auditor"][auditor_id]["user_id"]))
            and (ward_id is None or self._is_client(self._institution_of_ward(self._rows["megforms_ward"][ward_id])))
        )

    def _observation_counts(self, observation: Row) -> bool:
        return observation["deleted_at"] is None and self._is_clients_form(observation["form_id"])

    def _issue_counts(self, issue: Row) -> bool:
        return (
            issue["deleted_at"] is None
            and self._is_client(issue["institution_id"])
            and (issue["form_id"] is None or self._is_clients_form(issue["form_id"]))
            and self._is_clients_user(issue["created_by_id"])
        )

    # --- shared figures

    def _submitted(self, start: datetime | None, end: datetime) -> list[Row]:
        sessions = [row for row in self._sessions if row["submitted_at"] < end]
        return sessions if start is None else since(sessions, start)

    def _submissions(self, start: datetime | None, end: datetime) -> list[Row]:
        """The session of each observation that counts, as often as it has observations."""
        return [row for row in self._submitted(start, end) for _ in range(self._observations[row["id"]])]

    def _forms_in(self, period: Period, used: set[int]) -> Iterator[Row]:
        for form in self._tables["megforms_auditform"]:
            archived_before = form["archived_at"] is not None and form["archived_at"] < period.start
            alive = form["created_at"] < period.end and not archived_before
            if self._is_client(form["institution_id"]) and (alive or form["id"] in used):
                yield form

    def _form_fields(self, form: Row) -> Row:
        return {
            "institution_id": form["institution_id"],
            "institution_name": self._rows["megforms_institution"][form["institution_id"]]["name"],
            "form_id": form["id"],
            "form_name": form["name"],
            "form_type": form["form_type"],
        }

    def _document(self, fields: Row, **head: Any) -> Row:
        return {"region": self._region, "schema_version": 1, **head, **fields}

    # --- the jobs

    def monthly_submissions(self, period: Period) -> Documents:
        current = by_form(self._submissions(period.start, period.end))
        previous_sessions = by_form(self._submissions(period.previous().start, period.start))
        documents = {}
        for form in self._forms_in(period, set(current)):
            form_sessions, previous = current[form["id"]], len(previous_sessions[form["id"]])
            platforms = Counter(session["platform"] for session in form_sessions)
            fields = {
                **self._form_fields(form),
                "submissions": len(form_sessions),
                "submitters": len(distinct(form_sessions, "auditor_id")),
                "wards": len(distinct(form_sessions, "ward_id")),
                "submissions_by_platform": {name: platforms[name] for name in ("web", "ios", "android", "public")},
                "first_submitted_at": bson_time(min(times(form_sessions), default=None)),
                "last_submitted_at": bson_time(max(times(form_sessions), default=None)),
                "previous_submissions": previous,
                "change_pct": ratio(100 * (len(form_sessions) - previous), previous, 2),
            }
            key = f"{self._region}:{period.name}:{form['id']}"
            documents[key] = self._document(fields, period=period.name, period_start=bson_time(period.start))
        return documents

    def monthly_sessions(self, period: Period) -> Documents:
        sessions = by_form(self._submitted(period.start, period.end))
        used = set(by_form(self._submissions(period.start, period.end)))
        documents = {}
        for form in self._forms_in(period, used):
            form_sessions = sessions[form["id"]]
            seconds = sorted(
                length for length in map(duration, form_sessions) if length is not None and is_valid(length)
            )
            observations = sum(self._observations[session["id"]] for session in form_sessions)
            zone = ZoneInfo(self._zone)
            fields = {
                **self._form_fields(form),
                "sessions": len(form_sessions),
                "observations": observations,
                "observations_per_session": ratio(observations, len(form_sessions), 2),
                "auditors": len(distinct(form_sessions, "auditor_id")),
                "wards": len(distinct(form_sessions, "ward_id")),
                "active_days": len({session["submitted_at"].astimezone(zone).date() for session in form_sessions}),
                "duration_seconds": {
                    "total": rounded(sum(map(exact, seconds), Decimal(0)), 1),
                    "median": percentile(seconds, 0.5),
                    "p90": percentile(seconds, 0.9),
                },
                "invalid_durations": len(form_sessions) - len(seconds),
            }
            key = f"{self._region}:{period.name}:{form['id']}"
            documents[key] = self._document(fields, period=period.name, period_start=bson_time(period.start))
        return documents

    def quarterly_form_churn(self, last_quarter: Period) -> Documents:
        documents = {}
        for quarter in last_quarter.trailing(8):
            all_sessions = by_form(self._submissions(None, quarter.end))
            current_sessions = by_form(self._submissions(quarter.start, quarter.end))
            previous_sessions = by_form(self._submissions(quarter.previous().start, quarter.start))
            for form in self._forms_in(quarter, set(current_sessions)):
                form_sessions = all_sessions[form["id"]]
                current, previous = len(current_sessions[form["id"]]), len(previous_sessions[form["id"]])
                archived_at = form["archived_at"]
                fields = {
                    **self._form_fields(form),
                    "submissions": current,
                    "previous_submissions": previous,
                    "first_submitted_at": bson_time(min(times(form_sessions), default=None)),
                    "last_submitted_at": bson_time(max(times(form_sessions), default=None)),
                    "is_archived": archived_at is not None and archived_at < quarter.end,
                    "status": status(current, previous, len(form_sessions) - current - previous),
                }
                key = f"{self._region}:{quarter.name}:{form['id']}"
                head = {"period": quarter.name, "period_start": bson_time(quarter.start)}
                documents[key] = self._document(fields, **head)
        return documents

    def institutions(self, as_of: datetime) -> Documents:
        documents = {}
        for institution in self._tables["megforms_institution"]:
            if institution["is_demo"] or institution["created_at"] >= as_of:
                continue
            forms = [row for row in self._tables["megforms_auditform"] if row["institution_id"] == institution["id"]]
            ids = {form["id"] for form in forms}
            all_sessions = [row for row in self._submissions(None, as_of) if row["form_id"] in ids]
            used = [row for row in self._submitted(ago(as_of, 90), as_of) if row["form_id"] in ids]
            group = self._rows["megforms_institutiongroup"].get(institution["group_id"])
            names = ("name", "slug", "country", "is_active", "handles_patient_data")
            fields = {
                "institution_id": institution["id"],
                **{name: institution[name] for name in names},
                "group": group["name"] if group else None,
                "created_at": bson_time(institution["created_at"]),
                "departments": sum(
                    row["institution_id"] == institution["id"] for row in self._tables["megforms_department"]
                ),
                "wards": sum(
                    row["is_active"]
                    and row["created_at"] < as_of
                    and self._institution_of_ward(row) == institution["id"]
                    for row in self._tables["megforms_ward"]
                ),
                "users": len(self._active_users(institution["id"], as_of)),
                "users_active_30d": len(distinct(since(used, ago(as_of, 30)), "auditor_id")),
                "users_active_90d": len(distinct(used, "auditor_id")),
                "forms_published": sum(row["is_published"] and is_alive(row, as_of) for row in forms),
                "forms_used_90d": len(distinct(since(all_sessions, ago(as_of, 90)), "form_id")),
                **{f"submissions_{days}d": len(since(all_sessions, ago(as_of, days))) for days in (30, 90, 365)},
                "last_submitted_at": bson_time(max(times(all_sessions), default=None)),
            }
            documents[f"{self._region}:{institution['id']}"] = self._document(fields, as_of=as_of)
        return documents

    def forms(self, as_of: datetime) -> Documents:
        all_sessions, used = by_form(self._submissions(None, as_of)), by_form(self._submitted(ago(as_of, 90), as_of))
        schedules = Counter(
            row["form_id"]
            for row in self._tables["audits_auditschedule"]
            if row["deleted_at"] is None and row["created_at"] < as_of and self._is_clients_user(row["created_by_id"])
        )
        documents = {}
        for form in self._tables["megforms_auditform"]:
            if not self._is_client(form["institution_id"]) or form["created_at"] >= as_of:
                continue
            form_sessions, archived_at = all_sessions[form["id"]], form["archived_at"]
            unchanged = ("name", "form_type", "institution_id", "is_published", "collects_patient_data")
            fields = {
                "form_id": form["id"],
                **{name: form[name] for name in unchanged},
                "institution_name": self._rows["megforms_institution"][form["institution_id"]]["name"],
                "is_archived": archived_at is not None and archived_at < as_of,
                "review_cycle_days": form["review_cycle_days"],
                "created_at": bson_time(form["created_at"]),
                "archived_at": bson_time(archived_at),
                "schedules": schedules[form["id"]],
                "submissions_90d": len(since(form_sessions, ago(as_of, 90))),
                "submissions_365d": len(since(form_sessions, ago(as_of, 365))),
                "users_90d": len(distinct(used[form["id"]], "auditor_id")),
                "last_submitted_at": bson_time(max(times(form_sessions), default=None)),
            }
            documents[f"{self._region}:{form['id']}"] = self._document(fields, as_of=as_of)
        return documents

    def security_risk_clients(self, as_of: datetime) -> Documents:
        settings_rows = {row["institution_id"]: row for row in self._tables["client_management_securitysettings"]}
        documents = {}
        for institution in self._tables["megforms_institution"]:
            is_client = not institution["is_demo"] and institution["created_at"] < as_of
            if not (is_client and institution["is_active"] and institution["handles_patient_data"]):
                continue
            settings = {name: settings_rows.get(institution["id"], {}).get(name) for name in SETTINGS}
            users = self._active_users(institution["id"], as_of)
            admins = [user for user in users if self._auditor_of_user[user["id"]]["is_admin"]]
            figures = {
                "forms_with_patient_data": sum(
                    row["is_published"] and row["collects_patient_data"] and is_alive(row, as_of)
                    for row in self._tables["megforms_auditform"]
                    if row["institution_id"] == institution["id"]
                ),
                "users": len(users),
                "admins": len(admins),
                "admins_inactive_90d": sum(inactive(user, ago(as_of, 90)) for user in admins),
                "users_inactive_180d": sum(inactive(user, ago(as_of, 180)) for user in users),
                "users_without_mfa": sum(not self._auditor_of_user[user["id"]]["mfa_enabled"] for user in users),
            }
            weights = risks(settings, figures)
            score = sum(weights.values())
            fields = {
                "institution_id": institution["id"],
                "name": institution["name"],
                "country": institution["country"],
                **settings,
                **figures,
                "risks": sorted(weights),
                "unknown": sorted(name for name, value in settings.items() if value is None),
                "risk_score": score,
                "risk_level": "low" if score <= 2 else "medium" if score <= 5 else "high",
            }
            documents[f"{self._region}:{institution['id']}"] = self._document(fields, as_of=as_of)
        return documents

    def top_users(self, as_of: datetime) -> Documents:
        documents = {}
        for action, user_actions in self._user_actions().items():
            times = defaultdict(list)
            for user_id, at in user_actions:
                if self._is_clients_user(user_id) and ago(as_of, 365) <= at < as_of:
                    times[user_id].append(at)
            total = sum(map(len, times.values()))
            order = sorted(times.items(), key=lambda item: (-len(item[1]), -microseconds(max(item[1])), item[0]))
            for rank, (user_id, instants) in enumerate(order[:10], start=1):
                user, auditor = self._rows["auth_user"][user_id], self._auditor_of_user[user_id]
                names = ["" if "@" in user[part] else user[part] for part in ("first_name", "last_name")]
                username = f"user {user_id}" if "@" in user["username"] else user["username"]
                fields = {
                    "action": action,
                    "rank": rank,
                    "user_id": user_id,
                    "user_name": " ".join(names).strip(" ") or username,
                    "institution_id": auditor["institution_id"],
                    "institution_name": self._rows["megforms_institution"][auditor["institution_id"]]["name"],
                    "is_active": user["is_active"],
                    "count": len(instants),
                    "share_pct": ratio(100 * len(instants), total, 2),
                    "last_at": bson_time(max(instants)),
                }
                documents[f"{self._region}:{action}:{rank:02}"] = self._document(fields, as_of=as_of)
        return documents

    def _user_actions(self) -> dict[str, list[tuple[int, datetime]]]:
        """The user and the instant of each action on rows that are not excluded, by kind of action."""
        tables, rows = self._tables, self._rows
        schedules = [
            row
            for row in tables["audits_auditschedule"]
            if row["deleted_at"] is None and self._is_clients_form(row["form_id"])
        ]
        documents = [
            row
            for row in tables["documents_document"]
            if row["deleted_at"] is None and self._is_client(row["institution_id"])
        ]
        issues = {row["id"]: row for row in tables["issues_issue"] if self._issue_counts(row)}
        sessions = {row["id"] for row in self._sessions}
        observations = {
            row["id"]
            for row in tables["megforms_observation"]
            if self._observation_counts(row) and row["session_id"] in sessions
        }
        users = [row for row in tables["auth_user"] if self._is_clients_user(row["id"])]
        wards = [row for row in tables["megforms_ward"] if self._is_client(self._institution_of_ward(row))]
        submitted = [
            (rows["megforms_auditor"][row["auditor_id"]]["user_id"], row["submitted_at"])
            for row in self._sessions
            if row["auditor_id"] is not None
        ]
        edits = [row for row in tables["issues_issuechange"] if row["issue_id"] in issues]
        reviews = [row for row in tables["reviews_reviewedit"] if row["observation_id"] in observations]
        return {
            "document_creators": [(row["created_by_id"], row["created_at"]) for row in documents],
            "audit_schedule_creators": [(row["created_by_id"], row["created_at"]) for row in schedules],
            "issue_creators": [(row["created_by_id"], row["created_at"]) for row in issues.values()],
            "issue_editors": [(row["edited_by_id"], row["edited_at"]) for row in edits],
            "review_screen_editors": [(row["edited_by_id"], row["edited_at"]) for row in reviews],
            "audit_submitters": submitted,
            "user_creators": [(row["created_by_id"], row["date_joined_at"]) for row in users],
            "ward_creators": [(row["created_by_id"], row["created_at"]) for row in wards],
        }

    def _active_users(self, institution_id: int, as_of: datetime) -> list[Row]:
        return [
            user
            for user in self._tables["auth_user"]
            if user["is_active"]
            and user["date_joined_at"] < as_of
            and self._is_clients_user(user["id"])
            and self._auditor_of_user[user["id"]]["institution_id"] == institution_id
        ]

    def documents_for(self, job: str, period: Period | None, as_of: datetime) -> Documents:
        """The documents of any job."""
        instant_or_period = as_of if period is None else period
        documents: Documents = getattr(self, job)(instant_or_period)
        return documents
