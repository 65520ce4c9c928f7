"""The operators of `bi_backfill`: find what is missing, audit published months, and report what was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from bi_ops.airflow.base_operator import BiOperator, dag_run_ref, load_settings
from bi_ops.airflow.gate import run_dates
from bi_ops.airflow.region_start_operator import RegionStartOperator
from bi_ops.airflow.run_parameters import BackfillRequest, check_backfill_parameters
from bi_ops.airflow.task_error_log import log_error
from bi_ops.airflow.version_compat import RUNS_HAVE_NOTES
from bi_ops.catalog.jobs import JOBS, LoadMode
from bi_ops.catalog.slices import Slice
from bi_ops.errors import BiError, abbreviate
from bi_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from bi_ops.load.missing_slices import FoundSlices, LoadRequest
    from bi_ops.mongo.store import Store

XCOM_AUDITS_KEY = "audits"
"""The XCom with which `find` passes the slices of each task `audit`."""
_XCOM_REQUESTED_KEY = "requested"
_XCOM_BLOCKED_KEY = "blocked"
_FIGURES = ("changed", "added", "removed", "published", "in_meg")
_COLUMNS = "{period:<8} {job:<20} {region:<8} {changed:>7} {added:>6} {removed:>7} {published:>9} {in_meg:>9}"


def _backfill_request(context: Context, settings: Settings) -> BackfillRequest:
    """What the run was triggered for."""
    return check_backfill_parameters(
        context["dag_run"].conf or {},
        jobs=[job.name for job in JOBS],
        regions=settings.regions,
        timezone=settings.timezone,
    )


class FindSlicesOperator(RegionStartOperator):
    """Find the slices that a run of `bi_backfill` loads, lists or audits.

    Returns the arguments of each task `load`, and pushes the slices of each task `audit` under `audits`.
    """

    ui_color = "#e8f0fe"

    def _run_step(self, context: Context) -> list[dict[str, Any]]:
        from bi_ops.airflow.connections import open_store
        from bi_ops.load.missing_slices import find_slices, group_into_requests, limit_periods

        settings, now = Settings.from_env(), datetime.now(timezone.utc)
        request = _backfill_request(context, settings)
        selection = request.selection
        heals_itself = run_dates(context["dag_run"]).is_scheduled
        if heals_itself:  # what the night's runs may still be loading is not missing yet
            now -= timedelta(hours=settings.deadline_hours)
        with open_store(self._store_context) as store:
            found = find_slices(store, settings, selection, now, lambda region: self._read_region_start(store, region))
            if heals_itself:
                found = self._without_failures(store, found)
        self._log_slices(found, only_missing=selection.only_missing)
        slices = limit_periods(found.slices, settings.max_heal_periods) if heals_itself else found.slices
        if len(slices) < len(found.slices):
            self.log.info("Slices loaded today: %d; the others later (BI_MAX_HEAL_PERIODS)", len(slices))
        requests = [] if request.dry_run else group_into_requests(slices)
        push = context["ti"].xcom_push
        push(_XCOM_REQUESTED_KEY, [slice_.to_json() for slice_ in slices if requests])
        push(_XCOM_BLOCKED_KEY, [f"{slice_}: {error.message}" for slice_, error in found.blocked.items()])
        push(XCOM_AUDITS_KEY, _by_period(slices) if request.dry_run and not selection.only_missing else [])
        return [self._load_arguments(load, number, context) for number, load in enumerate(requests)]

    def _without_failures(self, store: Store, found: FoundSlices) -> FoundSlices:
        """What was found, without the slices whose last load failed for a reason that remains."""
        from bi_ops.load.missing_slices import FoundSlices
        from bi_ops.load.permanent_failures import find_failures

        failures = find_failures(store, found.slices)
        slices = [slice_ for slice_ in found.slices if slice_ not in failures]
        return FoundSlices(slices, {**found.blocked, **failures})

    def _log_slices(self, found: FoundSlices, *, only_missing: bool) -> None:
        from bi_ops.load.missing_slices import group_into_requests

        self.log.info("%s slices: %d", "Missing" if only_missing else "Due", len(found.slices))
        for request in group_into_requests(found.slices):
            self.log.info("    %s", request)
        for error in dict.fromkeys(found.blocked.values()):
            names = [str(slice_) for slice_, cause in found.blocked.items() if cause is error]
            self.log.warning("Not loaded: %s, because of:", abbreviate(names))
            log_error(self.log.warning, error)

    def _load_arguments(self, request: LoadRequest, number: int, context: Context) -> dict[str, Any]:
        run_id = f"{self.dag_id}__{request.period or 'now'}__{number}__{context['run_id']}"
        arguments = {"trigger_dag_id": request.cadence.dag_id, "trigger_run_id": run_id, "conf": request.conf}
        return {**arguments, "note": str(request)} if RUNS_HAVE_NOTES else arguments


def _by_period(slices: Iterable[Slice]) -> list[list[dict[str, Any]]]:
    """The slices of each period, as JSON; a snapshot cannot be compared, since MEG shows only its present state."""
    by_period: dict[str, list[dict[str, Any]]] = {}
    for slice_ in slices:
        if slice_.period and slice_.job.mode is LoadMode.REPLACE_PERIOD:
            by_period.setdefault(slice_.period.name, []).append(slice_.to_json())
    return [*by_period.values()]


class AuditOperator(BiOperator):
    """Compare the published slices of one period with MEG, and return a row for each; publishes nothing.

    Args:
        slices: The slices, as JSON.
    """

    template_fields: Sequence[str] = ("slices",)
    ui_color = "#e6f4ea"

    def __init__(self, *, slices: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slices = slices

    @property
    def map_label(self) -> str:
        """The label of this mapped task in the UI: its period."""
        return str(self.slices[0]["period"])

    def _run_step(self, context: Context) -> list[dict[str, Any]]:
        from bi_ops.airflow.connections import open_store

        settings = Settings.from_env()
        slices = [Slice.from_json(value, settings.timezone) for value in self.slices]
        with open_store(self._store_context) as store:
            rows = [self._audit(store, slice_, settings, context) for slice_ in slices]
        for line in _audit_table(rows):
            self.log.info(line)
        return rows

    def _audit(self, store: Store, slice_: Slice, settings: Settings, context: Context) -> dict[str, Any]:
        """The row of one slice; one that cannot be compared does not keep the others from it."""
        from bi_ops.airflow.connections import load_pseudonymizer, open_meg
        from bi_ops.load.compare_with_meg import audit

        self.log.info("Comparing %s with MEG", slice_)
        run = dag_run_ref(context)
        row = {"period": self.map_label, "job": slice_.job.name, "region": slice_.region}
        try:
            planned = load_settings(slice_, settings)
            pseudonyms = load_pseudonymizer(slice_.region, settings) if planned.pseudonymised else None
            with open_meg(slice_.region, application_name=f"{slice_} audit") as self._meg:
                difference = audit(self._meg, store, slice_, run, settings=planned, pseudonyms=pseudonyms)
        except BiError as error:
            log_error(self.log.error, error)
            return {**row, "error": error.summary}
        return {**row, **{name: getattr(difference, name) for name in _FIGURES}}


def _audit_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table of audited slices; those that are equal are only counted."""
    compared = [row for row in rows if "error" not in row]
    different = [row for row in compared if row["changed"] or row["added"] or row["removed"]]
    lines = [f"Slices compared with MEG: {len(compared)}, of which differ: {len(different)}"]
    if different:
        names = ("period", "job", "region", *_FIGURES)
        lines += [_COLUMNS.format(**dict(zip(names, names, strict=True)))]
        lines += [_COLUMNS.format(**row) for row in different]
    return lines


class BackfillReportOperator(BiOperator):
    """Report what a run of `bi_backfill` did; fails if something that it was asked for is missing.

    Returns the rows of all audited slices.

    Args:
        audits: The rows of each task `audit`.
    """

    template_fields: Sequence[str] = ("audits",)
    ui_color = "#fef7e0"

    def __init__(self, *, audits: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.audits = audits

    def _run_step(self, context: Context) -> list[dict[str, Any]]:
        pull = context["ti"].xcom_pull
        requested = pull(task_ids="find", key=_XCOM_REQUESTED_KEY)
        if requested is None:
            raise AirflowFailException("The task find has not ended; the last lines of its log say why.")
        rows = [row for audit in self.audits or [] for row in audit]
        if rows:
            for line in _audit_table(rows):
                self.log.info(line)
        selection = _backfill_request(context, Settings.from_env()).selection
        missing = self._missing(requested, context["dag_run"].start_date, only_missing=selection.only_missing)
        if requested:
            self.log.info("Slices loaded: %d of %d", len(requested) - len(missing), len(requested))
        problems = [
            *(f"{slice_}: not loaded; see its run, in the task load" for slice_ in missing),
            *(pull(task_ids="find", key=_XCOM_BLOCKED_KEY) or []),
            *(row["error"] for row in rows if "error" in row),
        ]
        for problem in problems:
            self.log.error(problem)
        if problems:
            raise AirflowFailException(f"Slices not loaded or compared: {len(problems)}; the log names each.")
        return rows

    def _missing(
        self, requested: Sequence[Mapping[str, Any]], started_at: datetime | None, *, only_missing: bool
    ) -> list[Slice]:
        """The slices that the run was to load and that are not published, or not since it started."""
        from bi_ops.airflow.connections import open_store
        from bi_ops.load.ledger import unpublished

        slices = [Slice.from_json(value, Settings.from_env().timezone) for value in requested]
        with open_store(self._store_context) as store:
            return unpublished(store, slices, since=None if only_missing else started_at)
