"""The base of the operators: the gate, the errors, and which of them are retried."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
)

from bi_ops.airflow.gate import require_open_gate
from bi_ops.airflow.task_error_log import log_error
from bi_ops.errors import BiError, SkippedError, StagingError
from bi_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from bi_ops.catalog.slices import Slice
    from bi_ops.load.staged_loads import LoadSettings
    from bi_ops.meg.reader import MegReader
    from bi_ops.mongo.store import DagRunRef


class BiOperator(BaseOperator):
    """A task that runs only while `BI_AGGREGATE` is on, logs its errors, and is retried only if that may help."""

    _needs_open_gate = True
    _meg: MegReader | None = None
    _slice: Slice | None = None

    def execute(self, context: Context) -> Any:
        """Run the task; what it raises decides whether Airflow retries it."""
        try:
            if self._needs_open_gate:
                require_open_gate(Settings.from_env())
            return self._run_step(context)
        except SkippedError as error:
            log_error(self.log.info, error)
            raise AirflowSkipException(error.summary) from None
        except BiError as error:
            log_error(self.log.error, error)
            if error.retryable:
                raise AirflowException(error.summary) from None
            self._record_failure(context, error)
            raise AirflowFailException(error.summary) from None

    def execute_complete(self, context: Context, event: Any = None) -> Any:  # noqa: ARG002 - Airflow passes it
        """Resume after a deferral."""
        return self.execute(context)

    def _run_step(self, context: Context) -> Any:
        raise NotImplementedError  # implemented by each operator

    def _record_failure(self, context: Context, error: BiError) -> None:
        """Record a failure that would happen again, so that `bi_backfill` does not repeat it every day."""
        if self._slice is None or isinstance(error, StagingError):
            return  # a new load plans and stages again
        if context["params"].get("dry_run"):
            return  # a dry run changes nothing, also not what `bi_backfill` loads
        from bi_ops.airflow.connections import open_store
        from bi_ops.load.permanent_failures import record_failure

        try:
            with open_store(self._store_context) as store:
                record_failure(store, self._slice, error, dag_run_ref(context))
        except BiError as record_error:
            log_error(self.log.warning, record_error)

    def on_kill(self) -> None:
        """Cancel this task's query on MEG."""
        if self._meg:
            self._meg.cancel()

    @property
    def _region_group(self) -> str:
        """The task group of the job and region, which is cleared to load the slice again."""
        return str(self.task_id.rpartition(".")[0])

    @property
    def _store_context(self) -> str:
        return self.task_id.replace(".", " ")

    def _defer_until(self, moment: datetime, reason: str) -> None:
        """Defer the task until an instant, without holding a worker slot; return at once if it is past."""
        if moment <= datetime.now(timezone.utc):
            return
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        self.log.info("Waiting until %s: %s", moment.isoformat(), reason)
        self.defer(trigger=DateTimeTrigger(moment=moment), method_name="execute_complete")


def dag_run_ref(context: Context) -> DagRunRef:
    """The DAG run of a task."""
    from bi_ops.mongo.store import DagRunRef

    return DagRunRef(context["dag"].dag_id, context["run_id"])


def load_settings(slice_: Slice, settings: Settings) -> LoadSettings:
    """The settings that decide a slice's documents."""
    from bi_ops.load.staged_loads import LoadSettings

    return LoadSettings(settings.timezone, settings.forms_per_chunk, _pseudonymised(slice_, settings))


def _pseudonymised(slice_: Slice, settings: Settings) -> bool:
    """Whether names in the slice are replaced by pseudonyms."""
    return slice_.region in settings.pseudonymise and any(field.person_id_field for field in slice_.job.fields)
