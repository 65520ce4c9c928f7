"""What a reader of the reports may ask for: regions, institutions, form types, a range of periods; values, always."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bi_ops.catalog.jobs import Job, LoadMode
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.errors import PeriodError, ReportError


@dataclass(frozen=True)
class Filters:
    """What to show; nothing of a kind means all of it.

    Attributes:
        regions: Names of regions.
        institutions: Names of institutions.
        form_types: Types of forms, in MEG's words.
        first: The first month, such as 2026-01.
        last: The last month.
    """

    regions: tuple[str, ...] = ()
    institutions: tuple[str, ...] = ()
    form_types: tuple[str, ...] = ()
    first: str = ""
    last: str = ""

    def match(self, job: Job) -> dict[str, Any]:
        """The MongoDB filter for a job's collection: of what it has fields for.

        Args:
            job: The job.

        Raises:
            ReportError: A value is not one, or the range is none.
        """
        fields = filter_fields(job)
        found: dict[str, Any] = {}
        for name, values in (
            ("region", self.regions),
            ("institution", self.institutions),
            ("form_type", self.form_types),
        ):
            if values and name in fields:
                found[fields[name]] = {"$in": [_value(name, value) for value in values]}
        if "period" in fields and (self.first or self.last):
            found[fields["period"]] = self._range(job.cadence)
        return found

    def _range(self, cadence: Cadence) -> dict[str, Any]:
        """From the period in which the first month lies to the one in which the last does.

        Periods are compared by name, which is the same whatever time zone they were cut in; names sort as time does.
        """
        found = {}
        if self.first:
            found["$gte"] = _period_name(self.first, cadence)
        if self.last:
            found["$lte"] = _period_name(self.last, cadence)
        if len(found) > 1 and found["$gte"] > found["$lte"]:
            raise ReportError(
                "the last month is before the first",
                context="filter period",
                expected="a first month, then the same or a later one",
                actual=f"{self.first} to {self.last}",
                hint="Change one of the two months.",
            )
        return found


def filter_fields(job: Job) -> dict[str, str]:
    """Which of a collection's fields each filter asks for; a filter that it has no field for is not here."""
    declared = {field.name for field in job.fields}
    fields = {"region": "region", "institution": "institution_name" if "institution_name" in declared else "name"}
    if "form_type" in declared:
        fields["form_type"] = "form_type"
    if job.mode is LoadMode.REPLACE_PERIOD or "period" in declared:
        fields["period"] = "period"
    return fields


def ignored_filters(job: Job, filters: Filters) -> Sequence[str]:
    """The filters that were asked for and that a collection has no field for."""
    asked = {
        "form type": (filters.form_types, "form_type"),
        "period": (filters.first or filters.last, "period"),
    }
    return [name for name, (values, key) in asked.items() if values and key not in filter_fields(job)]


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
    """The name of the period in which a month lies."""
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
