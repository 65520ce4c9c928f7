"""The jobs, each declared once, as data: the SQL template, the collection and the ledger follow from the name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from string import Formatter

from bi_ops.errors import BiError
from bi_ops.periods import Cadence


class Mode(str, Enum):
    """What a publish replaces."""

    APPEND = "append"
    """One period of one region; earlier periods stay."""
    WIPE = "wipe"
    """All that the collection holds of one region."""


class Kind(str, Enum):
    """What a field holds, and so what its column in PostgreSQL must be."""

    INTEGER = "integer"
    """smallint, integer or bigint; a BSON int."""
    NUMBER = "number"
    """numeric or double precision; a BSON double."""
    TEXT = "text"
    TEXTS = "list of text"
    BOOLEAN = "boolean"
    TIME = "time"
    """timestamptz; a BSON date, in UTC and milliseconds."""


@dataclass(frozen=True)
class Field:
    """One field of a collection's documents.

    Attributes:
        name: The name of the SQL template's column; `a.b` is field `b` of the sub-document `a`.
        kind: What it holds.
        meaning: What it says, with its unit, and when it is null.
        names: The field with the id of the person whom it names, where it is a person's name.
    """

    name: str
    kind: Kind
    meaning: str
    names: str = ""


@dataclass(frozen=True)
class Job:
    """What is loaded from every region into the collection of the job's name.

    Attributes:
        name: The collection, the SQL template `<name>.sql` and the task group.
        meg_task: The Celery task that it replaces.
        cadence: How often it runs, and so in which DAG.
        mode: What its publish replaces.
        key: What tells a slice's documents apart, as a format of fields; it ends their `_id`.
        summary: What one document is, in one line.
        fields: The documents' own fields, in their order.
        measure: The field whose sum over a slice tells a broken source from a good one, beside the count.
        in_chunks: Whether its forms are read in chunks; the key is then the form's id alone.
        hour: The hour of the day, in the settings' time zone, before which it does not start.
    """

    name: str
    meg_task: str
    cadence: Cadence
    mode: Mode
    key: str
    summary: str
    fields: tuple[Field, ...]
    measure: str
    in_chunks: bool = False
    hour: int = 0

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The names of the fields in its key."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.key) if name)

    @property
    def is_snapshot(self) -> bool:
        """Whether its documents describe an instant (`as_of`), not a period."""
        return self.mode is Mode.WIPE and all(field.name != "period" for field in self.fields)


_FORM = (
    Field("institution_id", Kind.INTEGER, "MEG's id of the institution that owns the form."),
    Field("institution_name", Kind.TEXT, "Its name."),
    Field("form_id", Kind.INTEGER, "MEG's id of the form."),
    Field("form_name", Kind.TEXT, "Its name."),
    Field("form_type", Kind.TEXT, "Its type, in MEG's words."),
)

JOBS = (
    Job(
        name="monthly_submissions",
        meg_task="aggregate_monthly_submissions",
        cadence=Cadence.MONTHLY,
        mode=Mode.APPEND,
        key="{form_id}",
        summary="What was submitted on a form in a month. A submission is an observation of a submitted session.",
        fields=(
            *_FORM,
            Field("submissions", Kind.INTEGER, "Observations whose session was submitted in the month."),
            Field("submitters", Kind.INTEGER, "Distinct auditors of those; a public form's have none."),
            Field("wards", Kind.INTEGER, "Distinct wards of those."),
            Field("submissions_by_platform.web", Kind.INTEGER, "Submissions from the web."),
            Field("submissions_by_platform.ios", Kind.INTEGER, "Submissions from an iPhone or iPad."),
            Field("submissions_by_platform.android", Kind.INTEGER, "Submissions from an Android device."),
            Field("submissions_by_platform.public", Kind.INTEGER, "Submissions through a public link."),
            Field("first_submitted_at", Kind.TIME, "The month's first; null without submissions."),
            Field("last_submitted_at", Kind.TIME, "The month's last; null without submissions."),
            Field("previous_submissions", Kind.INTEGER, "Submissions in the month before."),
            Field("change_pct", Kind.NUMBER, "Growth over the month before, in %; null when that had none."),
        ),
        measure="submissions",
        in_chunks=True,
    ),
    Job(
        name="monthly_sessions",
        meg_task="aggregate_monthly_sessions",
        cadence=Cadence.MONTHLY,
        mode=Mode.APPEND,
        key="{form_id}",
        summary="The audit sessions submitted on a form in a month.",
        fields=(
            *_FORM,
            Field("sessions", Kind.INTEGER, "Audit sessions submitted in the month."),
            Field("observations", Kind.INTEGER, "Observations in them."),
            Field("observations_per_session", Kind.NUMBER, "Their mean, 2 decimals; null without sessions."),
            Field("auditors", Kind.INTEGER, "Distinct auditors; a public form's sessions have none."),
            Field("wards", Kind.INTEGER, "Distinct wards."),
            Field("active_days", Kind.INTEGER, "Distinct days of submission, in `BI_TIMEZONE`."),
            Field("duration_seconds.total", Kind.NUMBER, "All valid durations together, in s; 0 without any."),
            Field("duration_seconds.median", Kind.NUMBER, "Their median, in s, interpolated; null without any."),
            Field("duration_seconds.p90", Kind.NUMBER, "Their 90th percentile, in s, interpolated; null without any."),
            Field("invalid_durations", Kind.INTEGER, "Sessions without end, ended before their start, or over 24 h."),
        ),
        measure="sessions",
        in_chunks=True,
        hour=1,
    ),
    Job(
        name="top_users",
        meg_task="sync_top_users",
        cadence=Cadence.MONTHLY,
        mode=Mode.WIPE,
        key="{action}:{rank:02}",
        summary="One of the ten users who did an action most in the 365 days before the as-of instant.",
        fields=(
            Field(
                "action",
                Kind.TEXT,
                "`document_creators`, `audit_schedule_creators`, `issue_creators`, `issue_editors`, "
                "`review_screen_editors`, `audit_submitters`, `user_creators` or `ward_creators`.",
            ),
            Field("rank", Kind.INTEGER, "1 to 10; ties go to the latest action, then to the lowest user id."),
            Field("user_id", Kind.INTEGER, "MEG's id of the user."),
            Field(
                "user_name",
                Kind.TEXT,
                "First and last name; the username where both are empty; `user <id>` where that is an e-mail address; "
                "under `BI_PSEUDONYMISE` a pseudonym.",
                names="user_id",
            ),
            Field("institution_id", Kind.INTEGER, "MEG's id of the user's institution."),
            Field("institution_name", Kind.TEXT, "Its name."),
            Field("is_active", Kind.BOOLEAN, "Whether the user may log in."),
            Field("count", Kind.INTEGER, "How often the user did it."),
            Field("share_pct", Kind.NUMBER, "Of all that the region's users did of it, in %, 2 decimals."),
            Field("last_at", Kind.TIME, "When the user last did it."),
        ),
        measure="count",
        hour=1,
    ),
    Job(
        name="quarterly_form_churn",
        meg_task="aggregate_quarterly_form_churn",
        cadence=Cadence.QUARTERLY,
        mode=Mode.WIPE,
        key="{period}:{form_id}",
        summary="How a form fared in one of the eight quarters up to the run's.",
        fields=(
            Field("period", Kind.TEXT, "The quarter, such as 2026-Q3."),
            Field("period_start", Kind.TIME, "Its first midnight, in `BI_TIMEZONE`."),
            *_FORM,
            Field("submissions", Kind.INTEGER, "Submissions in the quarter."),
            Field("previous_submissions", Kind.INTEGER, "Submissions in the quarter before."),
            Field("first_submitted_at", Kind.TIME, "The first ever, up to the quarter's end; null without any."),
            Field("last_submitted_at", Kind.TIME, "The last ever, up to the quarter's end; null without any."),
            Field("is_archived", Kind.BOOLEAN, "Whether the form was archived by the quarter's end."),
            Field(
                "status",
                Kind.TEXT,
                "`retained`: submissions in this quarter and the one before. `new`: in this one, for the first time. "
                "`reactivated`: in this one, not the one before, but earlier. `churned`: in the one before, not in "
                "this one. `dormant`: only earlier. `never_used`: never.",
            ),
        ),
        measure="submissions",
    ),
    Job(
        name="institutions",
        meg_task="sync_institutions",
        cadence=Cadence.WEEKLY,
        mode=Mode.WIPE,
        key="{institution_id}",
        summary="An institution, with its size and how much it is used.",
        fields=(
            Field("institution_id", Kind.INTEGER, "MEG's id of the institution."),
            Field("name", Kind.TEXT, "Its name."),
            Field("slug", Kind.TEXT, "Its name in MEG's addresses."),
            Field("group", Kind.TEXT, "The name of its group; null without one."),
            Field("country", Kind.TEXT, "Its country, in MEG's words."),
            Field("is_active", Kind.BOOLEAN, "Whether it is a client now."),
            Field("handles_patient_data", Kind.BOOLEAN, "Whether it may collect patient data."),
            Field("created_at", Kind.TIME, "When it was made."),
            Field("departments", Kind.INTEGER, "Its departments."),
            Field("wards", Kind.INTEGER, "Its active wards."),
            Field("users", Kind.INTEGER, "Its active users."),
            Field("users_active_30d", Kind.INTEGER, "Distinct users with a session submitted on its forms, 30 days."),
            Field("users_active_90d", Kind.INTEGER, "The same, 90 days."),
            Field("forms_published", Kind.INTEGER, "Its forms that are published and not archived."),
            Field("forms_used_90d", Kind.INTEGER, "Its forms with submissions, 90 days."),
            Field("submissions_30d", Kind.INTEGER, "Submissions on its forms, 30 days."),
            Field("submissions_90d", Kind.INTEGER, "The same, 90 days."),
            Field("submissions_365d", Kind.INTEGER, "The same, 365 days."),
            Field("last_submitted_at", Kind.TIME, "The last submission ever; null without any."),
        ),
        measure="users",
    ),
    Job(
        name="forms",
        meg_task="sync_forms",
        cadence=Cadence.WEEKLY,
        mode=Mode.WIPE,
        key="{form_id}",
        summary="A form, with how it is set up and how much it is used.",
        fields=(
            Field("form_id", Kind.INTEGER, "MEG's id of the form."),
            Field("name", Kind.TEXT, "Its name."),
            Field("form_type", Kind.TEXT, "Its type, in MEG's words."),
            Field("institution_id", Kind.INTEGER, "MEG's id of the institution that owns it."),
            Field("institution_name", Kind.TEXT, "Its name."),
            Field("is_published", Kind.BOOLEAN, "Whether it can be used."),
            Field("is_archived", Kind.BOOLEAN, "Whether it was archived before the as-of instant."),
            Field("collects_patient_data", Kind.BOOLEAN, "Whether it asks for patient data."),
            Field("review_cycle_days", Kind.INTEGER, "How often it is to be reviewed, in days; null without a cycle."),
            Field("created_at", Kind.TIME, "When it was made."),
            Field("archived_at", Kind.TIME, "When it was archived; null where it was not."),
            Field("schedules", Kind.INTEGER, "Audit schedules made for it."),
            Field("submissions_90d", Kind.INTEGER, "Submissions, 90 days."),
            Field("submissions_365d", Kind.INTEGER, "The same, 365 days."),
            Field("users_90d", Kind.INTEGER, "Distinct users with a session submitted on it, 90 days."),
            Field("last_submitted_at", Kind.TIME, "The last submission ever; null without any."),
        ),
        measure="submissions_365d",
    ),
    Job(
        name="security_risk_clients",
        meg_task="sync_security_risk_clients",
        cadence=Cadence.WEEKLY,
        mode=Mode.WIPE,
        key="{institution_id}",
        summary="How well an active client that handles patient data protects its accounts.",
        fields=(
            Field("institution_id", Kind.INTEGER, "MEG's id of the institution."),
            Field("name", Kind.TEXT, "Its name."),
            Field("country", Kind.TEXT, "Its country, in MEG's words."),
            Field("sso_enforced", Kind.BOOLEAN, "Whether all must use single sign-on; null: unknown."),
            Field("mfa_required", Kind.BOOLEAN, "Whether a second factor is required; null: unknown."),
            Field("password_min_length", Kind.INTEGER, "In characters; null: unknown."),
            Field("breached_password_check", Kind.BOOLEAN, "Whether known passwords are refused; null: unknown."),
            Field("session_idle_minutes", Kind.INTEGER, "When an idle session ends; 0: never; null: unknown."),
            Field("ip_allowlist", Kind.TEXTS, "From where one may log in; empty: anywhere; null: unknown."),
            Field("data_retention_days", Kind.INTEGER, "How long data is kept; null: unknown."),
            Field("forms_with_patient_data", Kind.INTEGER, "Published forms, not archived, that ask for such data."),
            Field("users", Kind.INTEGER, "Active users."),
            Field("admins", Kind.INTEGER, "Administrators among them."),
            Field("admins_inactive_90d", Kind.INTEGER, "Administrators who last logged in over 90 days ago, or never."),
            Field("users_inactive_180d", Kind.INTEGER, "Users who last logged in over 180 days ago, or never."),
            Field("users_without_mfa", Kind.INTEGER, "Users without a second factor."),
            Field("risks", Kind.TEXTS, "The codes of the risks that apply, sorted."),
            Field("unknown", Kind.TEXTS, "The settings that are null, sorted."),
            Field("risk_score", Kind.INTEGER, "The risks' weights together, 0 to 12."),
            Field("risk_level", Kind.TEXT, "`low`: 0 to 2. `medium`: 3 to 5. `high`: 6 and more."),
        ),
        measure="users",
    ),
)


def jobs_of(cadence: Cadence) -> tuple[Job, ...]:
    """The jobs that one DAG runs, in their declared order."""
    return tuple(job for job in JOBS if job.cadence is cadence)


def job_named(name: str) -> Job:
    """The job called `name`.

    Raises:
        BiError: There is none.
    """
    for job in JOBS:
        if job.name == name:
            return job
    raise BiError(
        "there is no such job",
        where="job",
        expected=", ".join(job.name for job in JOBS),
        found=repr(name),
        cure="Name one of these.",
    )
