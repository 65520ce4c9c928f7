"""The operator of `bi_watch`: reports which slices became late, and which of them have been published since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from bi_ops.airflow.notification_sender import Notification, send_notification
from bi_ops.airflow.notifier import NOTIFICATIONS_DISABLED
from bi_ops.airflow.region_start_operator import RegionStartOperator
from bi_ops.airflow.run_parameters import BACKFILL_DAG_ID
from bi_ops.airflow.task_error_log import log_error
from bi_ops.airflow.ui_links import base_url
from bi_ops.errors import BiError
from bi_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from bi_ops.load.watch import LatenessChanges
    from bi_ops.mongo.store import Store

_MAX_PARAGRAPHS = 40
"""The most paragraphs of one list: what fits into a message of most services."""


class WatchOperator(RegionStartOperator):
    """Report to `bi_notify` the slices that became late, once each, and once for each that has been published since.

    Returns the numbers of both, under `late` and `published`. Without the connection it does nothing.
    """

    ui_color = "#fce8e6"
    _needs_open_gate = False  # what a closed gate holds back is late too

    def _run_step(self, context: Context) -> dict[str, int] | None:  # noqa: ARG002 - as every operator's
        from bi_ops.airflow.connections import NOTIFY_CONN_ID, has_connection, open_store
        from bi_ops.load.region_starts import stored_region_starts
        from bi_ops.load.watch import find_changes, mark_reported

        if not has_connection(NOTIFY_CONN_ID):
            self.log.info(NOTIFICATIONS_DISABLED)
            return None
        settings, now = Settings.from_env(), datetime.now(timezone.utc)
        with open_store(self._store_context) as store:
            starts = stored_region_starts(store)
            changes = find_changes(store, settings, now, lambda region: self._region_start(store, starts, region))
            if changes.late or changes.published:
                self._send(changes, settings)
            mark_reported(store, changes, now)  # last: a notification that is not sent is sent by the next attempt
        self.log.info("Slices that became late: %d; published since: %d", len(changes.late), len(changes.published))
        return {"late": len(changes.late), "published": len(changes.published)}

    def _region_start(self, store: Store, starts: Mapping[str, datetime | None], region: str) -> datetime | None:
        """When a region began to use MEG, as it is stored, else from its MEG; None if neither says it."""
        try:
            return starts.get(region) or self._read_region_start(store, region)
        except BiError as error:
            self.log.warning("%s: counting from BI_START_DATE, since MEG does not say when it began", region)
            log_error(self.log.warning, error)
            return None

    def _send(self, changes: LatenessChanges, settings: Settings) -> None:
        from bi_ops.airflow.connections import NOTIFY_CONN_ID
        from bi_ops.load.watch import describe_slices

        counts, parts = [], []
        if changes.late:
            counts.append(f"{len(changes.late)} late")
            hint = "To load them, check that BI_AGGREGATE is on and the DAGs are unpaused, then trigger bi_backfill:"
            parts += [
                f"Not published {settings.deadline_hours:g} hours after they were due (BI_DEADLINE_HOURS):",
                *_bullets(describe_slices(changes.late, changes.failures)),
                f"{hint} {base_url()}/dags/{BACKFILL_DAG_ID}",
            ]
        if changes.published:
            counts.append(f"{len(changes.published)} no longer late")
            parts += ["No longer late, since they are published:", *_bullets(describe_slices(changes.published, {}))]
        body = "\n".join(parts)
        self.log.info("Sending this notification:\n%s", body)
        title = f"MEG BI: {', '.join(counts)}"
        send_notification(Notification(title, body, "warning" if changes.late else "success"), NOTIFY_CONN_ID)


def _bullets(paragraphs: Iterable[str]) -> list[str]:
    lines = [f"- {paragraph}" for paragraph in paragraphs]
    more = len(lines) - _MAX_PARAGRAPHS
    return [*lines[:_MAX_PARAGRAPHS], *([f"- and {more} more; BI reports shows all"] if more > 0 else [])]
