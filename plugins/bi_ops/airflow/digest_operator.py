"""The operator of `bi_digest`: sends the overview of a month to the connection `bi_digest`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowSkipException

from bi_ops.airflow.base_operator import BiOperator
from bi_ops.airflow.gate import run_dates
from bi_ops.airflow.notification_sender import Notification, send_notification
from bi_ops.airflow.run_parameters import check_digest_parameters
from bi_ops.airflow.ui_links import reports_url
from bi_ops.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from bi_ops.mongo.store import Store
    from bi_ops.reports.digest import Digest

DIGEST_DISABLED = "Digest disabled: connection bi_digest not found"


class DigestOperator(BiOperator):
    """Send the digest of a month to every service of the connection `bi_digest`, and return the month.

    A run that an asset started sends the month that ended last, once, when every region has published it. A run that
    was triggered by hand always sends: the requested month, also without some of the regions, or the newest month that
    every region has published.
    """

    ui_color = "#fef7e0"

    def _run_step(self, context: Context) -> str:
        from bi_ops.airflow.connections import DIGEST_CONN_ID, has_connection, open_store
        from bi_ops.load.region_starts import stored_region_starts
        from bi_ops.reports.digest import load_digest
        from bi_ops.reports.digest_state import due_month, requested_month

        if not has_connection(DIGEST_CONN_ID):
            self.log.info(DIGEST_DISABLED)
            raise AirflowSkipException(DIGEST_DISABLED)
        settings, now, run = Settings.from_env(), datetime.now(timezone.utc), context["dag_run"]
        requested = check_digest_parameters(run.conf or {}, timezone=settings.timezone, dates=run_dates(run), now=now)
        by_hand = str(getattr(run.run_type, "value", run.run_type)) != "asset_triggered"
        with open_store(self._store_context) as store:
            starts = stored_region_starts(store)
            if by_hand:
                month = requested_month(store, settings, requested, now, starts)
            else:
                month = due_month(store, settings, now, starts)
            digest = load_digest(store, settings, month, now, reports_url("overview"))
            self._send(store, digest, context["run_id"], by_hand=by_hand)
        return month.name

    def _send(self, store: Store, digest: Digest, run_id: str, *, by_hand: bool) -> None:
        """Send the digest, and store after each service that it took it, so that no attempt repeats that."""
        from bi_ops.airflow.connections import DIGEST_CONN_ID
        from bi_ops.reports.digest_rendering import digest_html, digest_images, digest_text
        from bi_ops.reports.digest_state import DigestState, read_state, write_state

        delivered = read_state(store, digest.month.name).delivered_before(run_id, by_hand=by_hand)
        state = DigestState(digest.month.name, None, run_id, delivered)

        def add_delivered(position: int) -> None:
            nonlocal state
            state = replace(state, delivered=(*state.delivered, position))
            write_state(store, state)

        self.log.info("Sending %s", digest.title)  # not its text: it names clients, and logs do not
        html, images = digest_html(digest), digest_images(digest)
        notification = Notification(digest.title, digest_text(digest), "info", html, images)
        send_notification(notification, DIGEST_CONN_ID, delivered=delivered, on_delivered=add_delivered)
        write_state(store, replace(state, sent_at=datetime.now(timezone.utc)))
        self.log.info("%s: sent to %d services", digest.title, len(state.delivered))
