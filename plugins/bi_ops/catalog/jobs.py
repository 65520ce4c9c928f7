"""Declares the seven jobs and their fields; a job's name is also that of its SQL template and its collection."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from string import Formatter

from bi_ops.catalog.periods import Cadence
from bi_ops.errors import BiError


class LoadMode(str, Enum):
    """What a publish replaces."""

    REPLACE_PERIOD = "append"
    """One period of one region; earlier periods stay."""
    REPLACE_REGION = "wipe"
    """All documents of one region."""


class FieldType(str, Enum):
    """The type of a field, which decides the types that its column in PostgreSQL may have."""

    INTEGER = "integer"
    """smallint, integer or bigint; a BSON int."""
    NUMBER = "number"
    """numeric or double precision; a BSON double."""
    TEXT = "text"
    TEXT_ARRAY = "list of text"
    BOOLEAN = "boolean"
    TIMESTAMP = "time"
    """timestamptz; a BSON date, in UTC and milliseconds."""


@dataclass(frozen=True)
class Field:
    """One field of a collection's documents.

    Attributes:
        name: The name of the SQL template's column; `a.b` is field `b` of the sub-document `a`.
        type: Its type.
        description: Its meaning, with its unit and when it is null.
        person_id_field: For a person's name, the field that holds the person's id; else empty.
    """

    name: str
    type: FieldType
    description: str
    person_id_field: str = ""


@dataclass(frozen=True)
class Job:
    """One of the loads: it reads every region into the collection of its name.

    Attributes:
        name: The collection, the SQL template `<name>.sql` and the task group.
        celery_task: The Celery task that it replaces.
        cadence: How often it runs, which decides its DAG.
        mode: What its publish replaces.
        key: A format string over the fields that identify a document in a slice; it is the end of the `_id`.
        summary: What one document is, in one line.
        fields: The documents' fields, in order, without the common ones.
        measure: The field whose sum over a slice, like the number of documents, must not fall sharply.
        chunked: Whether it reads forms in chunks; its key is then the form's id alone.
        earliest_hour: The hour of the day, in the settings' time zone, before which it does not start.
    """

    name: str
    celery_task: str
    cadence: Cadence
    mode: LoadMode
    key: str
    summary: str
    fields: tuple[Field, ...]
    measure: str
    chunked: bool = False
    earliest_hour: int = 0

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The names of the fields in its key."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.key) if name)

    @property
    def is_snapshot(self) -> bool:
        """Whether its documents describe an instant (`as_of`) and not a period."""
        return self.mode is LoadMode.REPLACE_REGION and all(field.name != "period" for field in self.fields)


_FORM = (
    Field("institution_id", FieldType.INTEGER, "MEG's id of the institution that owns the form."),
    Field("institution_name", FieldType.TEXT, "Its name."),
    Field("form_id", FieldType.INTEGER, "MEG's id of the form."),
    Field("form_name", FieldType.TEXT, "Its name."),
    Field("form_type", FieldType.TEXT, "Its type, as in MEG."),
)

JOBS = (
    Job(
        name="monthly_submissions",
        celery_task="aggregate_monthly_submissions",
        cadence=Cadence.MONTHLY,
        mode=LoadMode.REPLACE_PERIOD,
        key="{form_id}",
        summary="A form's submissions in a month: the observations of the sessions that were submitted in it.",
        fields=(
            *_FORM,
            Field("submissions", FieldType.INTEGER, "Observations whose session was submitted in the month."),
            Field("submitters", FieldType.INTEGER, "Distinct auditors of those; a public form's have none."),
            Field("wards", FieldType.INTEGER, "Distinct wards of those."),
            Field("submissions_by_platform.web", FieldType.INTEGER, "Submissions from the web."),
            Field("submissions_by_platform.ios", FieldType.INTEGER, "Submissions from an iPhone or iPad."),
            Field("submissions_by_platform.android", FieldType.INTEGER, "Submissions from an Android device."),
            Field("submissions_by_platform.public", FieldType.INTEGER, "Submissions through a public link."),
            Field("first_submitted_at", FieldType.TIMESTAMP, "The month's first; null without submissions."),
            Field("last_submitted_at", FieldType.TIMESTAMP, "The month's last; null without submissions."),
            Field("previous_submissions", FieldType.INTEGER, "Submissions in the month before."),
            Field("change_pct", FieldType.NUMBER, "Growth over the month before, in %; null when that had none."),
        ),
        measure="submissions",
        chunked=True,
    ),
    Job(
        name="monthly_sessions",
        celery_task="aggregate_monthly_sessions",
        cadence=Cadence.MONTHLY,
        mode=LoadMode.REPLACE_PERIOD,
        key="{form_id}",
        summary="A form's submitted audit sessions in a month.",
        fields=(
            *_FORM,
            Field("sessions", FieldType.INTEGER, "Audit sessions submitted in the month."),
            Field("observations", FieldType.INTEGER, "Observations in them."),
            Field("observations_per_session", FieldType.NUMBER, "Their mean, 2 decimals; null without sessions."),
            Field("auditors", FieldType.INTEGER, "Distinct auditors; a public form's sessions have none."),
            Field("wards", FieldType.INTEGER, "Distinct wards."),
            Field("active_days", FieldType.INTEGER, "Distinct days of submission, in `BI_TIMEZONE`."),
            Field("duration_seconds.total", FieldType.NUMBER, "All valid durations together, in s; 0 without any."),
            Field("duration_seconds.median", FieldType.NUMBER, "Their median, in s, interpolated; null without any."),
            Field(
                "duration_seconds.p90", FieldType.NUMBER, "Their 90th percentile, in s, interpolated; null without any."
            ),
            Field(
                "invalid_durations", FieldType.INTEGER, "Sessions without end, ended before their start, or over 24 h."
            ),
        ),
        measure="sessions",
        chunked=True,
        earliest_hour=1,
    ),
    Job(
        name="top_users",
        celery_task="sync_top_users",
        cadence=Cadence.MONTHLY,
        mode=LoadMode.REPLACE_REGION,
        key="{action}:{rank:02}",
        summary="One of the ten users who performed an action most often in the 365 days before the as-of instant.",
        fields=(
            Field(
                "action",
                FieldType.TEXT,
                "`document_creators`, `audit_schedule_creators`, `issue_creators`, `issue_editors`, "
                "`review_screen_editors`, `audit_submitters`, `user_creators` or `ward_creators`.",
            ),
            Field("rank", FieldType.INTEGER, "1 to 10; ties go to the latest action, then to the lowest user id."),
            Field("user_id", FieldType.INTEGER, "MEG's id of the user."),
            Field(
                "user_name",
                FieldType.TEXT,
                "First and last name; the username where both are empty; `user <id>` where that is an e-mail address; "
                "under `BI_PSEUDONYMISE` a pseudonym.",
                person_id_field="user_id",
            ),
            Field("institution_id", FieldType.INTEGER, "MEG's id of the user's institution."),
            Field("institution_name", FieldType.TEXT, "Its name."),
            Field("is_active", FieldType.BOOLEAN, "Whether the user may log in."),
            Field("count", FieldType.INTEGER, "How often the user did the action."),
            Field("share_pct", FieldType.NUMBER, "Share of the region's total for the action, in %, 2 decimals."),
            Field("last_at", FieldType.TIMESTAMP, "When the user last did the action."),
        ),
        measure="count",
        earliest_hour=1,
    ),
    Job(
        name="quarterly_form_churn",
        celery_task="aggregate_quarterly_form_churn",
        cadence=Cadence.QUARTERLY,
        mode=LoadMode.REPLACE_REGION,
        key="{period}:{form_id}",
        summary="A form's use in one quarter; each load writes the last eight quarters.",
        fields=(
            Field("period", FieldType.TEXT, "The quarter, such as 2026-Q3."),
            Field("period_start", FieldType.TIMESTAMP, "Its first midnight, in `BI_TIMEZONE`."),
            *_FORM,
            Field("submissions", FieldType.INTEGER, "Submissions in the quarter."),
            Field("previous_submissions", FieldType.INTEGER, "Submissions in the quarter before."),
            Field(
                "first_submitted_at", FieldType.TIMESTAMP, "The first ever, up to the quarter's end; null without any."
            ),
            Field(
                "last_submitted_at", FieldType.TIMESTAMP, "The last ever, up to the quarter's end; null without any."
            ),
            Field("is_archived", FieldType.BOOLEAN, "Whether the form was archived by the quarter's end."),
            Field(
                "status",
                FieldType.TEXT,
                "`retained`: submissions in this quarter and the one before. `new`: in this one, for the first time. "
                "`reactivated`: in this one, not the one before, but earlier. `churned`: in the one before, not in "
                "this one. `dormant`: only earlier. `never_used`: never.",
            ),
        ),
        measure="submissions",
    ),
    Job(
        name="institutions",
        celery_task="sync_institutions",
        cadence=Cadence.WEEKLY,
        mode=LoadMode.REPLACE_REGION,
        key="{institution_id}",
        summary="An institution, with its size and its use of MEG.",
        fields=(
            Field("institution_id", FieldType.INTEGER, "MEG's id of the institution."),
            Field("name", FieldType.TEXT, "Its name."),
            Field("slug", FieldType.TEXT, "Its name in MEG's URLs."),
            Field("group", FieldType.TEXT, "The name of its group; null without one."),
            Field("country", FieldType.TEXT, "Its country, as in MEG."),
            Field("is_active", FieldType.BOOLEAN, "Whether it is a client now."),
            Field("handles_patient_data", FieldType.BOOLEAN, "Whether it may collect patient data."),
            Field("created_at", FieldType.TIMESTAMP, "When it was created."),
            Field("departments", FieldType.INTEGER, "Its departments."),
            Field("wards", FieldType.INTEGER, "Its active wards."),
            Field("users", FieldType.INTEGER, "Its active users."),
            Field(
                "users_active_30d", FieldType.INTEGER, "Distinct users with a session submitted on its forms, 30 days."
            ),
            Field("users_active_90d", FieldType.INTEGER, "The same, 90 days."),
            Field("forms_published", FieldType.INTEGER, "Its forms that are published and not archived."),
            Field("forms_used_90d", FieldType.INTEGER, "Its forms with submissions, 90 days."),
            Field("submissions_30d", FieldType.INTEGER, "Submissions on its forms, 30 days."),
            Field("submissions_90d", FieldType.INTEGER, "The same, 90 days."),
            Field("submissions_365d", FieldType.INTEGER, "The same, 365 days."),
            Field("last_submitted_at", FieldType.TIMESTAMP, "The last submission ever; null without any."),
        ),
        measure="users",
    ),
    Job(
        name="forms",
        celery_task="sync_forms",
        cadence=Cadence.WEEKLY,
        mode=LoadMode.REPLACE_REGION,
        key="{form_id}",
        summary="A form, with its settings and its use.",
        fields=(
            Field("form_id", FieldType.INTEGER, "MEG's id of the form."),
            Field("name", FieldType.TEXT, "Its name."),
            Field("form_type", FieldType.TEXT, "Its type, as in MEG."),
            Field("institution_id", FieldType.INTEGER, "MEG's id of the institution that owns it."),
            Field("institution_name", FieldType.TEXT, "Its name."),
            Field("is_published", FieldType.BOOLEAN, "Whether it can be used."),
            Field("is_archived", FieldType.BOOLEAN, "Whether it was archived before the as-of instant."),
            Field("collects_patient_data", FieldType.BOOLEAN, "Whether it asks for patient data."),
            Field(
                "review_cycle_days", FieldType.INTEGER, "How often it is to be reviewed, in days; null without a cycle."
            ),
            Field("created_at", FieldType.TIMESTAMP, "When it was created."),
            Field("archived_at", FieldType.TIMESTAMP, "When it was archived; null if it was not."),
            Field("schedules", FieldType.INTEGER, "Audit schedules created for it."),
            Field("submissions_90d", FieldType.INTEGER, "Submissions, 90 days."),
            Field("submissions_365d", FieldType.INTEGER, "The same, 365 days."),
            Field("users_90d", FieldType.INTEGER, "Distinct users with a session submitted on it, 90 days."),
            Field("last_submitted_at", FieldType.TIMESTAMP, "The last submission ever; null without any."),
        ),
        measure="submissions_365d",
    ),
    Job(
        name="security_risk_clients",
        celery_task="sync_security_risk_clients",
        cadence=Cadence.WEEKLY,
        mode=LoadMode.REPLACE_REGION,
        key="{institution_id}",
        summary="An active institution that handles patient data, with its security settings and risks.",
        fields=(
            Field("institution_id", FieldType.INTEGER, "MEG's id of the institution."),
            Field("name", FieldType.TEXT, "Its name."),
            Field("country", FieldType.TEXT, "Its country, as in MEG."),
            Field("sso_enforced", FieldType.BOOLEAN, "Whether single sign-on is enforced; null: unknown."),
            Field("mfa_required", FieldType.BOOLEAN, "Whether a second factor is required; null: unknown."),
            Field("password_min_length", FieldType.INTEGER, "In characters; null: unknown."),
            Field("breached_password_check", FieldType.BOOLEAN, "Whether known passwords are refused; null: unknown."),
            Field("session_idle_minutes", FieldType.INTEGER, "When an idle session ends; 0: never; null: unknown."),
            Field("ip_allowlist", FieldType.TEXT_ARRAY, "Addresses allowed to log in; empty: all; null: unknown."),
            Field("data_retention_days", FieldType.INTEGER, "How long data is kept; null: unknown."),
            Field(
                "forms_with_patient_data",
                FieldType.INTEGER,
                "Published forms, not archived, that ask for patient data.",
            ),
            Field("users", FieldType.INTEGER, "Active users."),
            Field("admins", FieldType.INTEGER, "Administrators among them."),
            Field(
                "admins_inactive_90d",
                FieldType.INTEGER,
                "Administrators who last logged in over 90 days ago, or never.",
            ),
            Field("users_inactive_180d", FieldType.INTEGER, "Users who last logged in over 180 days ago, or never."),
            Field("users_without_mfa", FieldType.INTEGER, "Users without a second factor."),
            Field("risks", FieldType.TEXT_ARRAY, "The codes of the risks that apply, sorted."),
            Field("unknown", FieldType.TEXT_ARRAY, "The settings that are null, sorted."),
            Field("risk_score", FieldType.INTEGER, "The risks' weights together, 0 to 12."),
            Field("risk_level", FieldType.TEXT, "`low`: 0 to 2. `medium`: 3 to 5. `high`: 6 and more."),
        ),
        measure="users",
    ),
)


def jobs_for(cadence: Cadence) -> tuple[Job, ...]:
    """The jobs that one DAG runs, in their declared order."""
    return tuple(job for job in JOBS if job.cadence is cadence)


def get_job(name: str) -> Job:
    """The job called `name`.

    Raises:
        BiError: There is none.
    """
    for job in JOBS:
        if job.name == name:
            return job
    raise BiError(
        "unknown job",
        context="job",
        expected=", ".join(job.name for job in JOBS),
        actual=repr(name),
        hint="Use one of the expected names.",
    )
