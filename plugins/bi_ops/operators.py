"""The operators: what Airflow knows, handed to plan, stage and publish.

What reads and writes is imported when a task runs, so that parsing a DAG stays cheap.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar

import pendulum
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    BaseOperatorLink,
)
from typing_extensions import override

from bi_ops.errors import BiError, NewerSliceLiveError, StagingError
from bi_ops.jobs import Job
from bi_ops.links import ui
from bi_ops.settings import Settings
from bi_ops.slices import Slice
from bi_ops.versions import HAS_PAGES, SHRINKS_MAPPED_TASKS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from bi_ops.load import Chunk
    from bi_ops.publish import Published
    from bi_ops.source import Meg
    from bi_ops.store import Run

LOAD = "load"
"""The XCom under which `plan` tells `stage` and `publish` what is being loaded."""

_NAMED_FORMS = 3


class ReportLink(BaseOperatorLink):
    """From a task to its collection's reports."""

    name = "BI report"

    @override
    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The report's address, on the page that Airflow's API server has; empty, and so no link, in Airflow 3.0."""
        if not HAS_PAGES:
            return ""
        return f"{ui()}/bi-reports/#{_collection(ti_key)}"


class CollectionLink(BaseOperatorLink):
    """From a task to its collection in mongo-express, in development: where `BI_MONGO_EXPRESS` says where that is."""

    name = "Collection"

    @override
    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The collection's address; empty, and so no link, where there is no mongo-express."""
        address = os.environ.get("BI_MONGO_EXPRESS", "").rstrip("/")
        return f"{address}/db/bi/{_collection(ti_key)}" if address else ""


def _collection(ti_key: Any) -> str:
    return str(ti_key.task_id).split(".", maxsplit=1)[0]


class _BiOperator(BaseOperator):
    """A task whose failures are told in the pipeline's words, and retried only where that may help."""

    _meg: Meg | None = None

    def execute(self, context: Context) -> Any:
        try:
            return self._run_step(context)
        except NewerSliceLiveError as error:
            raise AirflowSkipException(str(error)) from None
        except BiError as error:
            if error.heals_by_itself:
                raise
            raise AirflowFailException(str(error)) from error

    def _run_step(self, context: Context) -> Any:
        raise NotImplementedError  # each operator's own

    def on_kill(self) -> None:
        """Stop the query that MEG is running for this task."""
        if self._meg:
            self._meg.cancel()


def _run(context: Context) -> Run:
    from bi_ops.store import Run

    return Run(context["dag"].dag_id, context["run_id"])


def _pseudonymised(of: Slice, settings: Settings) -> bool:
    """Whether the slice holds pseudonyms where it would hold names of people."""
    return of.region in settings.pseudonymise and any(field.names for field in of.job.fields)


def _refuse_other_names(of: Slice, load: dict[str, Any], settings: Settings) -> None:
    """Names that were planned or staged before `BI_PSEUDONYMISE` was set must not be published after it."""
    planned, now = load.get("pseudonymised", False), _pseudonymised(of, settings)
    if planned != now:
        raise StagingError(
            "BI_PSEUDONYMISE has changed since this load was planned",
            where=str(of),
            expected="pseudonyms" if now else "names",
            found="names" if now else "pseudonyms",
            cure=f"Clear the task group {of.task_group} of this run to stage it again.",
        )


class WaitOperator(BaseOperator):
    """Wait, without holding a worker, until an hour of the day on which the run's data interval ends.

    Where that hour is past, as in a catchup or a run by hand, it is passed at once.

    Args:
        hour: The hour, in the settings' time zone.
    """

    def __init__(self, *, hour: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hour = hour

    def execute(self, context: Context) -> None:
        """Defer to the triggerer, or return."""
        until = self._until(context["dag_run"].data_interval_end)
        if until is None or until <= datetime.now(timezone.utc):
            self.log.info("It is past %02d:00, so there is nothing to wait for", self.hour)
            return
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        self.log.info("Waiting until %s", until.isoformat())
        self.defer(trigger=DateTimeTrigger(moment=until), method_name="has_waited")

    def has_waited(self, context: Context, event: Any = None) -> None:
        """Return: the hour has come."""

    def _until(self, interval_end: datetime | None) -> datetime | None:
        if interval_end is None:
            return None
        midnight = pendulum.instance(interval_end).in_timezone(Settings.from_environment().timezone).start_of("day")
        return midnight.set(hour=self.hour)


class DoctorOperator(BaseOperator):
    """Examine all that the jobs need; the report is in the log, and what was found in XCom."""

    ui_color = "#fce8e6"

    def execute(self, context: Context) -> None:
        """Examine, report, and fail where something would keep the jobs from running well."""
        from bi_ops.doctor.examination import examine_all
        from bi_ops.doctor.findings import Verdict, report

        findings = list(examine_all(Settings.from_environment(), context["params"]["regions"]))
        self.log.info("\n%s", report(findings))
        context["ti"].xcom_push("findings", [{**asdict(each), "verdict": each.verdict.value} for each in findings])
        failed = [f"{each.subject}, {each.check}" for each in findings if each.verdict is Verdict.FAILED]
        if failed:
            raise AirflowFailException(f"Not well: {'; '.join(failed)}. The report above says what to do.")


class PlanOperator(_BiOperator):
    """List what one job loads from one region: the period or as-of, and each stage task's chunks.

    Pushes the chunks (a list for each stage task, of lists of form ids) as its result, and the slice under `load`.

    Args:
        job: The job.
        region: The region.
        sql: The query for the forms to read; empty for a job that reads everything in one query.
    """

    template_fields: Sequence[str] = ("sql",)
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}
    ui_color = "#e8f0fe"

    def __init__(self, *, job: Job, region: str, sql: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.region = region
        self.sql = sql

    def _run_step(self, context: Context) -> list[list[Chunk]]:
        from bi_ops.connections import open_meg, open_store
        from bi_ops.load import plan
        from bi_ops.staging import StagedSlice

        self._skip_unless_picked(context)
        settings = Settings.from_environment()
        started_at = datetime.now(timezone.utc)
        of = self._slice(context, settings)
        self.log.info("Planning %s", of)
        with open_store(f"{of} plan") as store, open_meg(self.region, reader=f"{of} plan") as self._meg:
            store.prepare_staging(of.job.name)
            tasks = plan(
                self._meg,
                StagedSlice(store, of, _run(context)),
                of,
                sql=self.sql,
                forms_per_chunk=settings.forms_per_chunk,
                max_tasks=settings.max_mapped_tasks,
            )
        if not SHRINKS_MAPPED_TASKS:
            tasks += [[]] * (self._stage_tasks(context) - len(tasks))
        chunks = sum(map(len, tasks))
        self.log.info("%s: %d chunks in %d stage tasks", of, chunks, len(tasks))
        load = {
            "slice": of.to_json(),
            "tasks": len(tasks),
            "chunks": chunks,
            "started_at": started_at.isoformat(),
            "pseudonymised": _pseudonymised(of, settings),
        }
        context["ti"].xcom_push(LOAD, load)
        return tasks

    def _stage_tasks(self, context: Context) -> int:
        """How many stage tasks an earlier plan of this run had: with fewer, Airflow would not go on."""
        stage = f"{self.task_id.rpartition('.')[0]}.stage"
        return int(context["ti"].get_ti_count(dag_id=self.dag_id, task_ids=[stage], run_ids=[context["run_id"]]))

    def _skip_unless_picked(self, context: Context) -> None:
        for parameter, name in (("jobs", self.job.name), ("regions", self.region)):
            picked = context["params"][parameter]
            if name not in picked:
                raise AirflowSkipException(
                    f"{name} is not among the {parameter} that this run was triggered for: {picked}"
                )

    def _slice(self, context: Context, settings: Settings) -> Slice:
        run = context["dag_run"]
        return Slice.of_run(
            self.job,
            self.region,
            settings.timezone,
            parameter=context["params"]["period"],
            interval_start=run.data_interval_start,
            run_after=run.run_after,
            now=datetime.now(timezone.utc),
        )


class StageOperator(_BiOperator):
    """Read some chunks of one job and region from MEG into the staging database; returns how many documents.

    Args:
        sql: The job's query.
        load: What `plan` pushed under `load`.
        chunks: The chunks to read in turn.
    """

    template_fields: Sequence[str] = ("sql", "load", "chunks")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "load": "json", "chunks": "json"}
    ui_color = "#e6f4ea"

    def __init__(self, *, sql: str, load: Any, chunks: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.load = load
        self.chunks = chunks
        self._forms: list[str] = []
        self._documents = 0

    def _run_step(self, context: Context) -> int:
        from bi_ops.connections import open_meg, open_pseudonyms, open_store
        from bi_ops.load import stage
        from bi_ops.staging import StagedSlice

        settings = Settings.from_environment()
        of = Slice.from_json(self.load["slice"], settings.timezone)
        _refuse_other_names(of, self.load, settings)
        pseudonyms = open_pseudonyms(of.region, settings) if _pseudonymised(of, settings) else None
        with open_store(f"{of} stage") as store, open_meg(of.region, reader=f"{of} stage") as self._meg:
            staged = StagedSlice(store, of, _run(context))
            for done in stage(
                self._meg, staged, of, self.chunks, sql=self.sql, timezone=settings.timezone, pseudonyms=pseudonyms
            ):
                self._documents += done.documents
                self._forms += done.forms
                self.log.info("%s: %d documents of %d chunks", of, self._documents, len(self.chunks))
        return self._documents

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """What OpenLineage's provider, where it is installed, records of this task."""
        from bi_ops import lineage

        of = Slice.from_json(self.load["slice"], Settings.from_environment().timezone)
        return lineage.of_stage(of, self.sql, self._documents)

    @property
    def label(self) -> str:
        """What the UI calls this mapped task: its forms, by id until it has run and by name after."""
        ids = [form_id for chunk in self.chunks if chunk for form_id in chunk]
        if not ids:
            return "no forms" if not self.chunks else "everything"
        label = f"{ids[0]}" if len(ids) == 1 else f"{ids[0]} to {ids[-1]}"
        if not self._forms:
            return f"forms {label}"
        more = len(self._forms) - _NAMED_FORMS
        names = ", ".join(name[:40] for name in self._forms[:_NAMED_FORMS])
        return f"{label}: {names}{f' and {more} more' if more > 0 else ''}"


class PublishOperator(_BiOperator):
    """Make what was staged of one job and region the live slice.

    Args:
        load: What `plan` pushed under `load`.
        staged: What each stage task returned, in their order. Airflow keeps what a task returned that a later plan of
            the same run no longer has; those stand last and count for nothing.
    """

    template_fields: Sequence[str] = ("load", "staged")
    template_fields_renderers: ClassVar[dict[str, str]] = {"load": "json", "staged": "json"}
    operator_extra_links = (ReportLink(), CollectionLink())  # of no other task: each is a call of the API at its end
    ui_color = "#fef7e0"

    def __init__(self, *, load: Any, staged: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.load = load
        self.staged = staged
        self._documents = 0

    def _run_step(self, context: Context) -> dict[str, int]:
        from bi_ops.connections import open_store
        from bi_ops.publish import Load, publish

        settings = Settings.from_environment()
        params = context["params"]
        load = Load(
            Slice.from_json(self.load["slice"], settings.timezone),
            _run(context),
            documents=sum(self.staged[: self.load["tasks"]]),  # one call of the API; each item would be one
            chunks=self.load["chunks"],
            started_at=self._started_at(context),
        )
        _refuse_other_names(load.slice, self.load, settings)
        with open_store(f"{load.slice} publish") as store:
            done = publish(
                store, load, max_shrink=settings.max_shrink, force=params["force"], dry_run=params["dry_run"]
            )
        if params["dry_run"]:
            raise AirflowSkipException(
                f"{load.slice}: checked, and nothing published (dry_run); {done.documents} documents would replace "
                f"{done.previous_documents}"
            )
        self.log.info(
            "%s: published; %d documents (%d before), %d of them written",
            load.slice,
            done.documents,
            done.previous_documents,
            done.written,
        )
        return self._told(context, load.slice, done)

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """What OpenLineage's provider, where it is installed, records of this task."""
        from bi_ops import lineage

        of = Slice.from_json(self.load["slice"], Settings.from_environment().timezone)
        return lineage.of_publish(of, self._documents)

    def _told(self, context: Context, of: Slice, done: Published) -> dict[str, int]:
        """What was published, for XCom and for whoever is scheduled on the collection."""
        counts = asdict(done)
        self._documents = done.documents
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {**of.to_json(), **counts}
        return counts

    def _started_at(self, context: Context) -> datetime:
        """When the load began: the plan, or the run's latest start where only a part of it was cleared."""
        planned_at = datetime.fromisoformat(self.load["started_at"])
        return max(filter(None, (planned_at, context["dag_run"].start_date)))
