"""The jobs, each declared once, as data: the SQL template, the collection and the ledger follow from the name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

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
    """

    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Job:
    """What is loaded from every region into the collection of the job's name.

    Attributes:
        name: The collection, the SQL template `<name>.sql` and the task group.
        meg_task: The Celery task that it replaces.
        cadence: How often it runs, and so in which DAG.
        mode: What its publish replaces.
        in_chunks: Whether its forms are read in chunks; the key is then the form's id alone.
        key: The fields that tell a slice's documents apart, and make up their `_id`.
        summary: What one document is, in one line.
        fields: The documents' own fields, in their order.
    """

    name: str
    meg_task: str
    cadence: Cadence
    mode: Mode
    in_chunks: bool
    key: tuple[str, ...]
    summary: str
    fields: tuple[Field, ...]


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
        in_chunks=True,
        key=("form_id",),
        summary="A form in a month: created before the month's end and not archived before its start, or "
        "with submissions in it. A submission is an observation of a submitted session.",
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
