"""The operators for the gate, plan, stage, publish, wait and doctor: thin layers over bi_ops.load and bi_ops.doctor.

They import the readers and stores when a task runs, so that parsing a DAG stays cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar

import pendulum
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator
from airflow.providers.standard.operators.python import ShortCircuitOperator

from bi_ops.airflow.base_operator import BiOperator, dag_run_ref, load_settings
from bi_ops.airflow.gate import run_dates
from bi_ops.airflow.ui_links import CollectionLink, ReportLink
from bi_ops.airflow.version_compat import SUPPORTS_SHRINKING_MAPPED_TASKS
from bi_ops.catalog.jobs import Job, get_job
from bi_ops.catalog.slices import Slice
from bi_ops.errors import DryRunError, NotSelectedError
from bi_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from bi_ops.load.publish import PublishResult

XCOM_LOAD_KEY = "load"
"""The XCom with which `plan` passes the load's id to `publish`."""

PARTITIONS_SUFFIX = "_partitions"
"""The end of the name of an asset whose events have partition keys."""


class GateOperator(ShortCircuitOperator):
    """Skip all tasks that follow if the condition is false, else those that the run's parameters do not select.

    An unselected `plan` skips itself too, but each would start a process for that.
    """

    def execute(self, context: Context) -> Any:
        """Evaluate the condition, and skip tasks accordingly."""
        is_open = super().execute(context)
        if is_open and (unselected := self._unselected(context["params"])):
            names = ", ".join(sorted(task.task_id for task in unselected))
            self.log.info("Skipped, because the run's parameters do not select them: %s", names)
            self.skip(context["ti"], unselected)
        return is_open

    def _unselected(self, params: Mapping[str, Any]) -> list[BaseOperator]:
        """The `plan` tasks that the run does not select, and the waits that only such tasks follow."""
        tasks = self.get_flat_relatives(upstream=False)
        plans = [task for task in tasks if isinstance(task, PlanOperator) and task.unselected_by(params)]
        plan_ids = {task.task_id for task in plans}
        waits = [task for task in tasks if isinstance(task, WaitUntilHourOperator)]
        return [*plans, *(task for task in waits if task.downstream_task_ids <= plan_ids)]


class WaitUntilHourOperator(BiOperator):
    """Wait, without holding a worker slot, until the given hour of the day on which the run's data interval ends.

    If that hour is past, as in a catchup run, or the run has no data interval, the task ends at once.

    Args:
        hour: The hour, in the settings' time zone.
    """

    def __init__(self, *, hour: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hour = hour

    def _run_step(self, context: Context) -> None:
        start = self._start(context["dag_run"].data_interval_end)
        if start is not None:
            self._defer_until(start, f"the jobs after this task start at {self.hour:02}:00")
        self.log.info("No wait: it is past %02d:00", self.hour)

    def _start(self, interval_end: datetime | None) -> datetime | None:
        if interval_end is None:
            return None
        midnight = pendulum.instance(interval_end).in_timezone(Settings.from_env().timezone).start_of("day")
        return midnight.set(hour=self.hour)


class DoctorOperator(BaseOperator):
    """Run the doctor's checks; the report goes to the log, and the findings to XCom."""

    ui_color = "#fce8e6"

    def execute(self, context: Context) -> None:
        """Run the checks, log the report, and fail if a check failed."""
        from bi_ops.airflow import connections
        from bi_ops.airflow.airflow_facts import read_airflow_facts
        from bi_ops.doctor.results import Status, format_report
        from bi_ops.doctor.runner import run_all_checks

        regions = context["params"]["regions"]
        findings = list(run_all_checks(Settings.from_env(), regions, connections, read_airflow_facts()))
        self.log.info("\n%s", format_report(findings))
        context["ti"].xcom_push(
            "findings", [{**asdict(finding), "status": finding.status.value} for finding in findings]
        )
        failed = [f"{finding.subject}, {finding.check}" for finding in findings if finding.status is Status.FAILED]
        if failed:
            raise AirflowFailException(f"Checks failed: {'; '.join(failed)}. The report above has a hint for each.")


class PlanOperator(BiOperator):
    """Plan the load of one job and region: its slice and the chunks of each stage task.

    Returns the arguments of each stage task, and pushes the load's id under `load`. The ids of the forms are in the
    staging database: each stage task would read all of them from an XCom.

    Args:
        job: The job.
        region: The region.
        sql: The query for the form ids; empty for a job without chunks.
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

    def _run_step(self, context: Context) -> list[dict[str, str]]:
        from bi_ops.airflow.connections import open_meg, open_store
        from bi_ops.load.plan import check_source, describe_forms, plan
        from bi_ops.load.staged_loads import Load, LoadStates

        self._check_selected(context)
        settings = Settings.from_env()
        started_at = datetime.now(timezone.utc)
        self._slice = slice_ = self._resolve_slice(context, settings)
        self.log.info("Planning %s, as of %s", slice_, slice_.as_of.isoformat())
        self._wait_until_settled(context, slice_, settings)
        with (
            open_store(self._store_context) as store,
            open_meg(self.region, application_name=f"{slice_} plan") as self._meg,
        ):
            store.check_live_collections(slice_.job.name)
            store.ensure_staging_collections(slice_.job.name)
            check_source(self._meg, slice_, settings.timezone)
            tasks = plan(
                self._meg,
                slice_,
                sql=self.sql,
                forms_per_chunk=settings.forms_per_chunk,
                max_tasks=settings.max_mapped_tasks,
            )
            if not SUPPORTS_SHRINKING_MAPPED_TASKS:
                tasks += [[]] * (self._stage_tasks(context) - len(tasks))
            load = Load(slice_, dag_run_ref(context), load_settings(slice_, settings), started_at)
            LoadStates(store).create(load, tasks)
        chunks = sum(map(len, tasks))
        self.log.info("%s: load %s, %d chunks in %d stage tasks", slice_, load.id, chunks, len(tasks))
        context["ti"].xcom_push(XCOM_LOAD_KEY, load.id)
        return [{"load": load.id, "forms": describe_forms(of_task)} for of_task in tasks]

    def _wait_until_settled(self, context: Context, slice_: Slice, settings: Settings) -> None:
        """Wait for transactions on MEG that began before the period's end and are committed after it."""
        dates = run_dates(context["dag_run"])
        if slice_.period is None and not context["params"]["period"] and not dates.is_scheduled:
            return  # a snapshot of the present
        self._defer_until(
            slice_.as_of + timedelta(minutes=settings.settle_minutes),
            f"transactions begun before {slice_.as_of.isoformat()} may commit after it (BI_SETTLE_MINUTES)",
        )

    def _stage_tasks(self, context: Context) -> int:
        """The number of stage tasks of this run's earlier plan; with fewer, Airflow would not continue."""
        stage = f"{self._region_group}.stage"
        return int(context["ti"].get_ti_count(dag_id=self.dag_id, task_ids=[stage], run_ids=[context["run_id"]]))

    def unselected_by(self, params: Mapping[str, Any]) -> tuple[str, str] | None:
        """The parameter of a run that does not name this task's job or region, with that name; None if both do."""
        names = (("jobs", self.job.name), ("regions", self.region))
        return next(((parameter, name) for parameter, name in names if name not in params[parameter]), None)

    def _check_selected(self, context: Context) -> None:
        if unselected := self.unselected_by(context["params"]):
            parameter, name = unselected
            raise NotSelectedError(
                "the run's parameters do not select this task",
                context=name,
                actual=f"{parameter}: {', '.join(context['params'][parameter])}",
                hint="No action needed.",
            )

    def _resolve_slice(self, context: Context, settings: Settings) -> Slice:
        return Slice.for_dag_run(
            self.job,
            self.region,
            settings.timezone,
            requested=context["params"]["period"],
            dates=run_dates(context["dag_run"]),
            now=datetime.now(timezone.utc),
        )


class StageOperator(BiOperator):
    """Read chunks of one job and region from MEG into the staging database, and return the number of documents.

    Args:
        sql: The job's query.
        load: The id of the load.
        forms: The forms of the task's chunks, for people.
    """

    template_fields: Sequence[str] = ("sql", "load", "forms")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}
    ui_color = "#e6f4ea"

    def __init__(self, *, sql: str, load: Any, forms: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.load = load
        self.forms = forms
        self._documents = 0

    def _run_step(self, context: Context) -> int:
        from bi_ops.airflow.connections import load_pseudonymizer, open_meg, open_store
        from bi_ops.load.stage import stage
        from bi_ops.load.staged_loads import LoadStates

        settings = Settings.from_env()
        with open_store(self._store_context) as store:
            load = LoadStates(store).get(self.load, self._region_group)
            self._slice = slice_ = load.slice
            self.log.info("Staging %s, as of %s, load %s", slice_, slice_.as_of.isoformat(), load.id)
            load.check_settings(load_settings(slice_, settings))
            pseudonyms = load_pseudonymizer(slice_.region, settings) if load.settings.pseudonymised else None
            with open_meg(slice_.region, application_name=f"{slice_} stage") as self._meg:
                task = context["ti"].map_index or 0
                for documents in stage(self._meg, store, load, task, sql=self.sql, pseudonyms=pseudonyms):
                    self._documents += documents
                    self.log.info("%s, %s: %d documents", slice_, self.forms, self._documents)
        return self._documents

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """The lineage of this task, for OpenLineage's provider if it is installed."""
        from bi_ops.airflow import lineage

        return lineage.stage_lineage(self._slice, self.sql, self._documents) if self._slice else None

    def map_label(self, run: Any, requested: str | None) -> str:
        """The label of this mapped task in the UI: its period and its forms.

        Args:
            run: The DAG run.
            requested: Its `period` parameter.
        """
        return f"{self._period_label(run, requested)}: {self.forms}"

    def _period_label(self, run: Any, requested: str | None) -> str:
        settings = Settings.from_env()
        slice_ = self._slice
        if slice_ is None:
            job, region = self._region_group.split(".")
            slice_ = Slice.for_dag_run(
                get_job(job),
                region,
                settings.timezone,
                requested=requested,
                dates=run_dates(run),
                now=datetime.now(timezone.utc),
            )
        return slice_.period_label(settings.timezone)


class PublishOperator(BiOperator):
    """Publish the staged slice of one job and region.

    Args:
        load: The id of the load, as `plan` pushed it.
    """

    template_fields: Sequence[str] = ("load",)
    operator_extra_links = (ReportLink(), CollectionLink())  # only here: each link costs an API call at a task's end
    ui_color = "#fef7e0"

    def __init__(self, *, load: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.load = load
        self._documents = 0

    def _run_step(self, context: Context) -> dict[str, int]:
        from bi_ops.airflow.connections import open_store
        from bi_ops.load.publish import publish
        from bi_ops.load.staged_loads import LoadStates

        settings = Settings.from_env()
        params = context["params"]
        with open_store(self._store_context) as store:
            load = LoadStates(store).get(self.load, self._region_group)
            self._slice = slice_ = load.slice
            self.log.info("Publishing %s, as of %s, load %s", slice_, slice_.as_of.isoformat(), load.id)
            load.check_settings(load_settings(slice_, settings))
            result = publish(
                store,
                load,
                max_shrink=settings.max_shrink,
                # If only a part of the run was cleared, its plan began long before.
                started_at=max(filter(None, (load.started_at, context["dag_run"].start_date))),
                force=params["force"],
                dry_run=params["dry_run"],
            )
        if params["dry_run"]:
            raise DryRunError(
                "dry run: checked, but not published",
                context=str(slice_),
                actual=f"{result.documents} documents would replace {result.previous_documents}",
                hint="Trigger the run without dry_run to publish.",
            )
        counts = result.documents, result.previous_documents, result.written
        self.log.info("%s: published %d documents (previously %d); %d written", slice_, *counts)
        return self._record_result(context, slice_, result, settings.timezone)

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """The lineage of this task, for OpenLineage's provider if it is installed."""
        from bi_ops.airflow import lineage

        return lineage.publish_lineage(self._slice, self._documents) if self._slice else None

    def _record_result(
        self, context: Context, slice_: Slice, result: PublishResult, timezone_name: str
    ) -> dict[str, int]:
        """Record what was published, in XCom and in the asset events."""
        counts = asdict(result)
        self._documents = result.documents
        for asset in self.outlets:
            event = context["outlet_events"][asset]
            event.extra = {**slice_.to_json(), **counts}
            if asset.name.endswith(PARTITIONS_SUFFIX):
                event.add_partitions(f"{slice_.region}|{slice_.period_label(timezone_name)}")
        return counts
