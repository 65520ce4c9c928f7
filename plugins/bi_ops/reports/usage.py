"""Reads how each client uses MEG: its months, its newest quarter and those it is compared with, its security risk."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from bi_ops.catalog.jobs import get_job
from bi_ops.mongo.store import LEDGER_COLLECTION, Document
from bi_ops.reports.filters import Filters
from bi_ops.reports.loaded_periods import (
    LoadedPeriods,
    loaded_period_steps,
    previous_period,
    trailing_periods,
    year_before,
)
from bi_ops.reports.query_execution import Query, Steps, select_fields
from bi_ops.reports.slice_sums import RegionPeriod, SliceSums, Sums, SumsBySlice

SUBMISSIONS, SESSIONS = get_job("monthly_submissions"), get_job("monthly_sessions")
CHURN, INSTITUTIONS = get_job("quarterly_form_churn"), get_job("institutions")
SECURITY = get_job("security_risk_clients")
SERIES_MONTHS = 13
"""A year and the month a year before, with which the last one is compared."""
_CONTEXT = "the clients' use"
_INSTITUTION_FIELDS = (
    "region",
    "institution_id",
    "name",
    "country",
    "is_active",
    "users",
    "users_active_30d",
    "created_at",
    "last_submitted_at",
    "as_of",
)


class ClientKey(NamedTuple):
    """What identifies a client: MEG's ids are those of a region."""

    region: str
    institution_id: int


class MonthUse(NamedTuple):
    """A client's documents of a month, together.

    Attributes:
        submissions: Its submissions.
        forms: Its forms.
        forms_used: Its forms with submissions.
    """

    submissions: int = 0
    forms: int = 0
    forms_used: int = 0


class QuarterUse(NamedTuple):
    """A client's documents of a quarter, together.

    Attributes:
        submissions: Its submissions.
        churned: Its forms that were used in the quarter before only.
        retained: Its forms that were used in both.
    """

    submissions: int = 0
    churned: int = 0
    retained: int = 0


U = TypeVar("U", MonthUse, QuarterUse)
SumsByClient = Mapping[int, Document]
"""The sums of each client's documents of a region and period, by the institution's id.

They stay as they were read: an object for each client and month made Python's garbage collector stop requests.
"""


@dataclass(frozen=True)
class Usage:
    """How the selected clients use MEG.

    Attributes:
        months: The loaded months of `monthly_submissions`.
        quarters: The loaded quarters of `quarterly_form_churn`.
        institutions: The snapshot's documents of the selected clients, with the fields that the page shows.
        by_month: The sums of each client's documents by region and month, of the last 13 months up to the newest that
            all selected regions have.
        by_quarter: The same by region and quarter, of the newest one and those it is compared with.
        security: The documents of `security_risk_clients`, with level, score and as-of.
    """

    months: LoadedPeriods
    quarters: LoadedPeriods
    institutions: Sequence[Document]
    by_month: Mapping[RegionPeriod, SumsByClient]
    by_quarter: Mapping[RegionPeriod, SumsByClient]
    security: Mapping[ClientKey, Document]

    @cached_property
    def month(self) -> str | None:
        """The newest selected month that all selected regions have."""
        return self.months.newest()

    @cached_property
    def shown_months(self) -> list[str]:
        """The months of a series: at most 13 up to `month`, within the selected ones."""
        months = trailing_periods(self.month, SERIES_MONTHS) if self.month else ()
        return [month for month in months if self.months.selects(month)]

    @cached_property
    def quarter_by_region(self) -> Mapping[str, str | None]:
        """Each selected region's newest selected quarter."""
        return {region: self.quarters.newest(region) for region in self.quarters.coverage.regions}

    def of_month(self, key: ClientKey, month: str | None) -> MonthUse | None:
        """A client's use in a month; None if its region has not loaded the month."""
        if not month or not self.months.has(month, key.region):
            return None
        return _use(MonthUse, self.by_month, key, month)

    def of_quarter(self, key: ClientKey, quarter: str | None) -> QuarterUse | None:
        """A client's use in a quarter; None if its region has not loaded the quarter."""
        if not quarter or not self.quarters.has(quarter, key.region):
            return None
        return _use(QuarterUse, self.by_quarter, key, quarter)


def oldest_as_of(documents: Iterable[Document]) -> datetime | None:
    """The instant that the oldest of these documents of snapshots describes."""
    return min((row["as_of"] for row in documents if row.get("as_of")), default=None)


def usage_steps(filters: Filters, slice_sums: SliceSums | None = None) -> Steps[Usage]:
    """The queries for the use of the selected clients.

    Args:
        filters: The filters.
        slice_sums: The sums of slices that were read before.

    Raises:
        ReportError: A filter is invalid.
    """
    slice_sums = slice_sums or SliceSums()
    months = yield from loaded_period_steps(SUBMISSIONS, filters)
    quarters = yield from loaded_period_steps(CHURN, filters)
    month = months.newest()
    institutions = yield select_fields("institutions", filters.match(INSTITUTIONS), _INSTITUTION_FIELDS, _CONTEXT)
    security = yield select_fields(
        "security_risk_clients",
        filters.match(SECURITY),
        ("region", "institution_id", "risk_level", "risk_score", "as_of"),
        _CONTEXT,
    )
    by_month = yield from slice_sums.steps(
        CLIENT_MONTH_SUMS, filters, months, trailing_periods(month, SERIES_MONTHS) if month else ()
    )
    by_quarter = yield from slice_sums.steps(_QUARTER_SUMS, filters, quarters, _compared_quarters(quarters))
    return Usage(
        months,
        quarters,
        institutions,
        _by_client(by_month),
        _by_client(by_quarter),
        {_key(row): row for row in security},
    )


def ledger_version_steps() -> Steps[Hashable]:
    """The query for a value that changes with every publish, and with each transaction of one in progress."""
    published = {"$convert": {"input": "$published_at", "to": "long", "onError": 0, "onNull": 0}}
    sums = {"slices": {"$sum": 1}, "published": {"$sum": published}, "publishing": {"$sum": "$publishing.documents"}}
    rows = yield Query(LEDGER_COLLECTION, [{"$group": {"_id": None, **sums}}], "the ledger")
    return tuple(rows[0].values()) if rows else None


def count_where(field: str, operator: str, value: Any) -> Document:
    """The accumulator that counts the documents whose field compares so with the value."""
    return {"$sum": {"$cond": [{operator: [f"${field}", value]}, 1, 0]}}


SESSION_SUMS = Sums(SESSIONS, {"sessions": {"$sum": "$sessions"}})
CLIENT_SESSION_SUMS = Sums(SESSIONS, SESSION_SUMS.sums, "institution_id", _CONTEXT)
CLIENT_MONTH_SUMS = Sums(
    SUBMISSIONS,
    {"submissions": {"$sum": "$submissions"}, "forms": {"$sum": 1}, "forms_used": count_where("submissions", "$gt", 0)},
    "institution_id",
    _CONTEXT,
)
_QUARTER_SUMS = Sums(
    CHURN,
    {
        "submissions": {"$sum": "$submissions"},
        "churned": count_where("status", "$eq", "churned"),
        "retained": count_where("status", "$eq", "retained"),
    },
    "institution_id",
    _CONTEXT,
)


def _by_client(sums: SumsBySlice) -> Mapping[RegionPeriod, SumsByClient]:
    return {slice_: {row["institution_id"]: row for row in rows} for slice_, rows in sums.items()}


def _use(use_type: type[U], sums: Mapping[RegionPeriod, SumsByClient], key: ClientKey, period: str) -> U:
    """A client's use in a loaded period; one without documents has not used anything."""
    row = sums.get(RegionPeriod(key.region, period), {}).get(key.institution_id)
    return use_type(*(row[name] for name in use_type._fields)) if row else use_type()


def _key(row: Mapping[str, Any]) -> ClientKey:
    return ClientKey(row["region"], row["institution_id"])


def _compared_quarters(quarters: LoadedPeriods) -> list[str]:
    """Each region's newest quarter, the one before and the one a year before."""
    newest = {quarters.newest(region) for region in quarters.coverage.regions}
    return sorted({name for quarter in newest if quarter for name in compared_with(quarter)})


def compared_with(period: str) -> tuple[str, str, str]:
    """A period, the one before and the one a year before."""
    return period, previous_period(period), year_before(period)
