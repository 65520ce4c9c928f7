"""Sends a notification of each failed run through Apprise, if there is a connection `bi_notify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseNotifier

from bi_ops.airflow.ui_links import base_url
from bi_ops.airflow.version_compat import CALLBACKS_SEE_TASK_STATES
from bi_ops.reports.airflow_paths import dag_run_path

if TYPE_CHECKING:
    from airflow.sdk import Context

NOTIFY_CONN_ID = "bi_notify"
_FAILED = ("failed", "upstream_failed")


class BiNotifier(BaseNotifier):
    """Sends one notification per failed DAG run: what is missing and where to look."""

    def notify(self, context: Context) -> None:
        """Send the notification; runs in Airflow's DAG processor."""
        from airflow.providers.apprise.notifications.apprise import AppriseNotifier
        from apprise import NotifyType

        dag_id, run_id = str(context["dag"].dag_id), str(context["run_id"])
        notifier: BaseNotifier = AppriseNotifier(
            title=f"MEG BI: {dag_id} failed",
            body=f"{_describe_failure(context, dag_id, run_id)} The live data is unchanged.\n"
            f"Run {run_id}: {base_url()}{dag_run_path(dag_id, run_id)}\n"
            "The last lines of a failed task's log say what to do.",
            notify_type=NotifyType.FAILURE,
            apprise_conn_id=NOTIFY_CONN_ID,
        )
        try:
            notifier.notify(context)
        except AirflowNotFoundException:
            from bi_ops.airflow.connections import has_connection, missing_connection
            from bi_ops.airflow.task_error_log import log_error

            if has_connection(NOTIFY_CONN_ID):
                log_error(self.log.error, missing_connection(NOTIFY_CONN_ID, "apprise"))
            else:
                self.log.info("Notifications disabled: connection %s not found", NOTIFY_CONN_ID)


def _describe_failure(context: Mapping[str, Any], dag_id: str, run_id: str) -> str:
    """A sentence that names the jobs and regions that were not published."""
    if "ti" not in context or not CALLBACKS_SEE_TASK_STATES:  # Airflow 3.0's DAG processor cannot ask, and hangs
        return "Some slices were not published."
    states = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    groups = {tuple(task.split(".")[:2]) for task, state in states.items() if state in _FAILED and "." in task}
    names = ", ".join(" ".join(group) for group in sorted(groups))
    return f"Not published: {names or 'none, or all slices'}."
