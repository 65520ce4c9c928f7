"""Telling people that figures are missing: by Apprise, to wherever the connection `bi_notify` says, or else nobody."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseNotifier

from bi_ops.links import run_path, ui
from bi_ops.versions import HAS_DEADLINES, TASKS_ARE_TOLD_OF

if TYPE_CHECKING:
    from airflow.sdk import Context

NOTIFY = "bi_notify"
_FAILED = ("failed", "upstream_failed")


class BiNotifier(BaseNotifier):
    """Tells about one DAG run, once, what is missing and where to look.

    Args:
        late_after: How many hours the run was given, where it is told for being late; None where it failed.
    """

    def __init__(self, *, late_after: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.late_after = late_after

    def notify(self, context: Context) -> None:
        """Tell, from Airflow's DAG processor, that a run has failed."""
        try:
            self._message(context).notify(context)
        except AirflowNotFoundException:
            self._log_that_nobody_is_told()

    async def async_notify(self, context: Context) -> None:
        """Tell, from Airflow's triggerer, that a run is late."""
        try:
            await self._message(context).async_notify(context)
        except AirflowNotFoundException:
            self._log_that_nobody_is_told()

    def _message(self, context: Mapping[str, Any]) -> BaseNotifier:
        from airflow.providers.apprise.notifications.apprise import AppriseNotifier
        from apprise import NotifyType

        dag_id, run_id = _run_of(context)
        link = ui() + run_path(dag_id, run_id)
        if self.late_after is None:
            title, body = f"{dag_id} failed", f"{_what_failed(context, dag_id, run_id)} What was live is live still."
        else:
            title = f"{dag_id} is late"
            body = f"Not all of its figures were published within {self.late_after:g} hours."
        return AppriseNotifier(
            title=f"MEG BI: {title}",
            body=f"{body}\nRun {run_id}: {link}\nThe last line of a failed task's log says what to do.",
            notify_type=NotifyType.FAILURE if self.late_after is None else NotifyType.WARNING,
            apprise_conn_id=NOTIFY,
        )

    def _log_that_nobody_is_told(self) -> None:
        self.log.info("Nobody is told: there is no connection %s", NOTIFY)


def deadline(hours: float) -> dict[str, Any]:
    """Tell people about a run whose figures are not all published so long after it was due.

    Args:
        hours: How long, from when the scheduler queued the run, which is when its period ended or it was triggered.

    Returns:
        The DAG's argument; none where Airflow is too old to know deadlines.
    """
    if not HAS_DEADLINES:
        return {}
    from airflow.sdk.definitions.callback import AsyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    late = AsyncCallback(BiNotifier, kwargs={"late_after": hours})
    return {"deadline": DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, timedelta(hours=hours), late)}


def _run_of(context: Mapping[str, Any]) -> tuple[str, str]:
    """The DAG's and the run's id; Airflow gives a deadline's callback the run as plain values."""
    run = context.get("dag_run")
    if isinstance(run, Mapping):
        return str(run["dag_id"]), str(run["dag_run_id"])
    return str(context["dag"].dag_id), str(context["run_id"])


def _what_failed(context: Mapping[str, Any], dag_id: str, run_id: str) -> str:
    """The jobs and regions that were not published."""
    if "ti" not in context or not TASKS_ARE_TOLD_OF:  # Airflow 3.0's DAG processor cannot ask, and hangs
        return "Some of its figures were not published."
    states = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    groups = {tuple(task.split(".")[:2]) for task, state in states.items() if state in _FAILED and "." in task}
    named = ", ".join(" ".join(group) for group in sorted(groups))
    return f"Not published: {named or 'nothing, or all of it'}."
