"""Turns the page's filters (regions, institutions, form types, months) into a MongoDB filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bi_ops.catalog.jobs import Job, LoadMode
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.errors import PeriodError, ReportError


@dataclass(frozen=True)
class Filters:
    """The values to show; an empty filter selects everything.

    Attributes:
        regions: Names of regions.
        institutions: Names of institutions.
        form_types: Types of forms, in MEG's words.
        from_month: The first month, such as 2026-01.
        to_month: The last month.
    """

    regions: tuple[str, ...] = ()
    institutions: tuple[str, ...] = ()
    form_types: tuple[str, ...] = ()
    from_month: str = ""
    to_month: str = ""

    def match(self, job: Job) -> dict[str, Any]:
        """The MongoDB filter for a job's collection, with the filters for which it has a field.

        Args:
            job: The job.

        Raises:
            ReportError: A value is not a non-empty string or a month, or the range is reversed.
        """
        fields = filter_fields(job)
        query: dict[str, Any] = {}
        for name, values in (
            ("region", self.regions),
            ("institution", self.institutions),
            ("form_type", self.form_types),
        ):
            if values and name in fields:
                query[fields[name]] = {"$in": [_value(name, value) for value in values]}
        if "period" in fields and (self.from_month or self.to_month):
            query[fields["period"]] = self._range(job.cadence)
        return query

    def _range(self, cadence: Cadence) -> dict[str, Any]:
        """The range from the period that holds the first month to the one that holds the last.

        Periods are compared by name, which does not depend on the time zone; names sort chronologically.
        """
        bounds = {}
        if self.from_month:
            bounds["$gte"] = _period_name(self.from_month, cadence)
        if self.to_month:
            bounds["$lte"] = _period_name(self.to_month, cadence)
        if len(bounds) > 1 and bounds["$gte"] > bounds["$lte"]:
            raise ReportError(
                "the last month is before the first",
                context="filter period",
                expected="a first month, then the same or a later one",
                actual=f"{self.from_month} to {self.to_month}",
                hint="Change one of the two months.",
            )
        return bounds


def filter_fields(job: Job) -> dict[str, str]:
    """The collection's field for each filter; a filter without a field is left out."""
    declared = {field.name for field in job.fields}
    fields = {"region": "region", "institution": "institution_name" if "institution_name" in declared else "name"}
    if "form_type" in declared:
        fields["form_type"] = "form_type"
    if job.mode is LoadMode.REPLACE_PERIOD or "period" in declared:
        fields["period"] = "period"
    return fields


def ignored_filters(job: Job, filters: Filters) -> Sequence[str]:
    """The filters that are set and for which the collection has no field."""
    values_by_filter = {
        "form type": (filters.form_types, "form_type"),
        "period": (filters.from_month or filters.to_month, "period"),
    }
    return [name for name, (values, key) in values_by_filter.items() if values and key not in filter_fields(job)]


def _value(name: str, value: str) -> str:
    if not isinstance(value, str) or not value:
        raise ReportError(
            "a filter value must be a non-empty string",
            context=f"filter {name}",
            expected="a non-empty string",
            actual=type(value).__name__,
            hint="Choose a value from the page's list.",
        )
    return value


def _period_name(month: str, cadence: Cadence) -> str:
    """The name of the period that holds a month."""
    try:
        return Period.containing(Period.parse(month, Cadence.MONTHLY, "UTC").start, cadence, "UTC").name
    except PeriodError:
        raise ReportError(
            "invalid month",
            context="filter period",
            expected="a month such as 2026-10, from 1970 to 2999",
            actual=repr(month[:20]),
            hint="Choose a month such as 2026-10.",
        ) from None
