"""Sends notifications through Apprise, if there is a connection `bi_notify`; one for each failed DAG run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import BaseNotifier

from bi_ops.airflow.task_error_log import log_error
from bi_ops.airflow.ui_links import base_url
from bi_ops.airflow.version_compat import CALLBACKS_SEE_TASK_STATES
from bi_ops.catalog.periods import Cadence
from bi_ops.errors import BiError, ConnectionConfigError, NotificationError
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
            send_notification(f"MEG BI: {dag_id} failed", body, "failure")
        except BiError as error:
            log_error(self.log.error, error)


def send_notification(title: str, body: str, notify_type: Literal["success", "warning", "failure"]) -> None:
    """Send a text to every service of the connection `bi_notify`.

    Apprise is called directly, since the provider's notifier does not say whether a service took the text.

    Raises:
        ConnectionConfigError: There is no such connection, or it cannot be used.
        NotificationError: A service did not take the text.
    """
    from apprise import Apprise, NotifyFormat, NotifyType

    from bi_ops.airflow.connections import NOTIFY_CONN_ID, load_notification_services

    context = f"connection {NOTIFY_CONN_ID}"
    apprise = Apprise()
    unknown = [
        service for service in load_notification_services() if not apprise.add(service["path"], tag=service.get("tag"))
    ]
    delivered = apprise.notify(body, title=title, notify_type=NotifyType(notify_type), body_format=NotifyFormat.TEXT)
    if unknown:
        raise ConnectionConfigError(
            "Apprise does not know the URL of a service",
            context=context,
            expected="URLs as in https://github.com/caronc/apprise/wiki",
            actual=f"{len(unknown)} of another form",
            hint="Correct the path in the connection's extra.",
        )
    if not delivered:
        raise NotificationError(
            "the notification was not delivered",
            context=context,
            expected="every service to take it",
            actual="refused or not reached; Apprise's own lines above say more",
            hint="Retried automatically. If it persists, check the service, and its URL in the connection's extra.",
        )


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
