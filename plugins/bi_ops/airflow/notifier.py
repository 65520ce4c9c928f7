"""Sends notifications through Apprise, if there is a connection `bi_notify`; one for each failed DAG run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

from bi_ops.airflow.notification_sender import Notification, send_notification
from bi_ops.airflow.task_error_log import log_error
from bi_ops.airflow.ui_links import base_url
from bi_ops.airflow.version_compat import CALLBACKS_SEE_TASK_STATES
from bi_ops.catalog.periods import Cadence
from bi_ops.errors import BiError
from bi_ops.reports.airflow_paths import dag_run_path

if TYPE_CHECKING:
    from airflow.sdk import Context

NOTIFICATIONS_DISABLED = "Notifications disabled: connection bi_notify not found"
_FAILED = ("failed", "upstream_failed")
_LOADING_DAGS = {cadence.dag_id for cadence in Cadence}


class BiNotifier(BaseNotifier):
    """Sends one notification per failed DAG run: what is missing and where to look."""

    def notify(self, context: Context) -> None:
        """Send the notification; runs in Airflow's DAG processor."""
        from bi_ops.airflow.connections import NOTIFY_CONN_ID, has_connection

        if not has_connection(NOTIFY_CONN_ID):
            self.log.info(NOTIFICATIONS_DISABLED)
            return
        dag_id, run_id = str(context["dag"].dag_id), str(context["run_id"])
        body = (
            f"{_describe_failure(context, dag_id, run_id)}"
            f"Run {run_id}: {base_url()}{dag_run_path(dag_id, run_id)}\n"
            "The last lines of a failed task's log say what to do."
        )
        try:
            send_notification(Notification(f"MEG BI: {dag_id} failed", body, "failure"), NOTIFY_CONN_ID)
        except BiError as error:
            log_error(self.log.error, error)


def _describe_failure(context: Mapping[str, Any], dag_id: str, run_id: str) -> str:
    """A line that names the jobs and regions that were not published; empty for a DAG that publishes none."""
    if dag_id not in _LOADING_DAGS:
        return ""
    if "ti" not in context or not CALLBACKS_SEE_TASK_STATES:  # Airflow 3.0's DAG processor cannot ask, and hangs
        return "Some slices were not published. The live data is unchanged.\n"
    states = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    groups = {tuple(task.split(".")[:2]) for task, state in states.items() if state in _FAILED and "." in task}
    names = ", ".join(" ".join(group) for group in sorted(groups))
    return f"Not published: {names or 'none, or all slices'}. The live data is unchanged.\n"
