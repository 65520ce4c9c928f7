"""Telling people that figures are missing: by Apprise, to wherever the connection `bi_notify` says, or else nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseNotifier

from bi_ops.links import run_path, ui
from bi_ops.versions import TASKS_ARE_TOLD_OF

if TYPE_CHECKING:
    from airflow.sdk import Context

NOTIFY = "bi_notify"
_FAILED = ("failed", "upstream_failed")


class BiNotifier(BaseNotifier):
    """Tells about one DAG run that has failed, once, what is missing and where to look."""

    def notify(self, context: Context) -> None:
        """Tell, from Airflow's DAG processor."""
        from airflow.providers.apprise.notifications.apprise import AppriseNotifier
        from apprise import NotifyType

        dag_id, run_id = str(context["dag"].dag_id), str(context["run_id"])
        message: BaseNotifier = AppriseNotifier(
            title=f"MEG BI: {dag_id} failed",
            body=f"{_what_failed(context, dag_id, run_id)} What was live is live still.\n"
            f"Run {run_id}: {ui()}{run_path(dag_id, run_id)}\n"
            "The last lines of a failed task's log say what to do.",
            notify_type=NotifyType.FAILURE,
            apprise_conn_id=NOTIFY,
        )
        try:
            message.notify(context)
        except AirflowNotFoundException:
            from bi_ops.connections import has_connection, missing_connection
            from bi_ops.reasons import log_reason

            if has_connection(NOTIFY):
                log_reason(self.log.error, missing_connection(NOTIFY, "apprise"))
            else:
                self.log.info("Nobody is notified: there is no connection %s", NOTIFY)


def _what_failed(context: Mapping[str, Any], dag_id: str, run_id: str) -> str:
    """The jobs and regions that were not published."""
    if "ti" not in context or not TASKS_ARE_TOLD_OF:  # Airflow 3.0's DAG processor cannot ask, and hangs
        return "Some of its figures were not published."
    states = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    groups = {tuple(task.split(".")[:2]) for task, state in states.items() if state in _FAILED and "." in task}
    named = ", ".join(" ".join(group) for group in sorted(groups))
    return f"Not published: {named or 'nothing, or all of it'}."
