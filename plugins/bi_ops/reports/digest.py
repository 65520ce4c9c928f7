"""The digest of one month: the reports page's overview and freshness, to be sent. It names clients, and no people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

import pendulum

from bi_ops.mongo.store import Store
from bi_ops.reports import freshness
from bi_ops.reports.clients import list_clients
from bi_ops.reports.digest_state import DigestMonth
from bi_ops.reports.filters import Filters
from bi_ops.reports.overview import OverviewFigures, overview_steps
from bi_ops.reports.query_execution import Steps, execute
from bi_ops.reports.usage import usage_steps
from bi_ops.settings import Settings


@dataclass(frozen=True)
class Digest:
    """What the digest of one month says.

    Attributes:
        month: The month, and the regions that its figures cover.
        figures: The overview of the month.
        freshness: What is published and what is missing, in one sentence.
        page_url: The address of the reports page; empty if there is none.
    """

    month: DigestMonth
    figures: OverviewFigures
    freshness: str
    page_url: str = ""

    @property
    def title(self) -> str:
        """The subject line."""
        month = pendulum.from_format(self.month.name, "YYYY-MM").format("MMMM YYYY")
        return f"MEG usage in {month}" + (f", without {', '.join(self.month.lacking)}" if self.month.lacking else "")


def load_digest(store: Store, settings: Settings, month: DigestMonth, now: datetime, page_url: str = "") -> Digest:
    """Compute the digest of a month.

    Args:
        store: The databases.
        settings: The settings in force.
        month: The month and its regions.
        now: The present.
        page_url: The address of the reports page.
    """
    figures = execute(store.live, _figures_steps(Filters(regions=month.regions, to_month=month.name)))
    verdict = freshness.overview(store, settings, now).verdict
    instant = now.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return Digest(month, figures, f"At {instant}: {verdict.text}.", page_url)


def _figures_steps(filters: Filters) -> Steps[OverviewFigures]:
    usage = yield from usage_steps(filters)
    return (yield from overview_steps(filters, usage, list_clients(usage)))
