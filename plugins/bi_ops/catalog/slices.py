"""A slice: the documents of one collection that one publish replaces, of a region or of a region and period."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pendulum

from bi_ops.catalog.jobs import Job, LoadMode, get_job
from bi_ops.catalog.periods import Cadence, Period, RunDates, resolve_period

_CHURN_QUARTERS = 8


@dataclass(frozen=True)
class IdRange:
    """The string `_id`s from `start` up to, not including, `end`."""

    start: str
    end: str

    @classmethod
    def with_prefix(cls, prefix: str) -> IdRange:
        """Every `_id` that starts with `prefix`."""
        return cls(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))

    @property
    def filter(self) -> dict[str, Any]:
        """The MongoDB filter for this range, served by the `_id` index alone."""
        return {"_id": {"$gte": self.start, "$lt": self.end}}


@dataclass(frozen=True)
class Slice:
    """The documents of one collection that one publish replaces: of a region and period, or of a whole region.

    Attributes:
        job: The job whose collection it is.
        region: The region it describes.
        as_of: The instant it describes; for an append job, its period's end.
        period: The period it covers; None for a snapshot.
    """

    job: Job
    region: str
    as_of: datetime
    period: Period | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.job.name, self.region, self.period.name if self.period else "")))

    def period_label(self, timezone: str) -> str:
        """The name of its period; for a snapshot, the date in `timezone` that it describes."""
        if self.period:
            return self.period.name
        return pendulum.instance(self.as_of).in_timezone(timezone).to_date_string()

    @property
    def task_group(self) -> str:
        """The task group that loads it; clear it to load the slice again."""
        return f"{self.job.name}.{self.region}"

    @property
    def prefix(self) -> str:
        """The start of each of its documents' `_id`: `region:period:` or `region:`."""
        if self.job.mode is LoadMode.REPLACE_PERIOD and self.period:
            return f"{self.region}:{self.period.name}:"
        return f"{self.region}:"

    @property
    def ledger_id(self) -> str:
        """Its `_id` in the ledger: `job:region:period` or `job:region`."""
        return f"{self.job.name}:{self.prefix[:-1]}"

    @property
    def id_range(self) -> IdRange:
        """The `_id` range that holds its documents and nothing else."""
        return IdRange.with_prefix(self.prefix)

    def document_id(self, **key: object) -> str:
        """The `_id` of the document with these key fields."""
        return self.prefix + self.job.key.format_map(key)

    @property
    def sql_parameters(self) -> dict[str, Any]:
        """The values of the slice that the job's SQL may bind, beside `chunks` and `timezone`."""
        values: dict[str, Any] = {"as_of": self.as_of}
        if self.period:
            values["period_start"] = self.period.start
            values["period_end"] = self.period.end
            values["previous_start"] = self.period.previous().start
        if self.period and self.job.cadence is Cadence.QUARTERLY:
            # One more than the churn covers: the first is needed only as the quarter before the second.
            quarters = self.period.trailing(_CHURN_QUARTERS + 1)
            values["quarter_names"] = [quarter.name for quarter in quarters]
            values["quarter_starts"] = [quarter.start for quarter in quarters]
            values["quarter_ends"] = [quarter.end for quarter in quarters]
        return values

    @classmethod
    def for_dag_run(
        cls, job: Job, region: str, timezone: str, *, requested: str | None, dates: RunDates, now: datetime
    ) -> Slice:
        """The slice that a DAG run loads.

        Args:
            job: The job.
            region: The region.
            timezone: The settings' time zone.
            requested: The run's `period` parameter; empty or None if not set.
            dates: What Airflow knows about the time of the run; a snapshot describes `run_after` if no period is
                requested.
            now: The present.

        Raises:
            PeriodError: The period is malformed or has not ended.
        """
        if job.is_snapshot and not requested:
            return cls(job, region, _truncate_to_milliseconds(dates.run_after))
        period = resolve_period(job.cadence, timezone, requested=requested, dates=dates, now=now)
        return cls(job, region, period.end, None if job.is_snapshot else period)

    def to_json(self) -> dict[str, Any]:
        """The slice as JSON values, for the staging database and for the extra of asset events."""
        return {
            "job": self.job.name,
            "region": self.region,
            "period": self.period.name if self.period else None,
            "as_of": self.as_of.isoformat(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], timezone: str) -> Slice:
        """The inverse of `to_json`; `timezone` is the settings'."""
        job = get_job(value["job"])
        period = Period.parse(value["period"], job.cadence, timezone) if value["period"] else None
        return cls(job, value["region"], datetime.fromisoformat(value["as_of"]), period)


def _truncate_to_milliseconds(instant: datetime) -> datetime:
    """The instant as BSON stores it, so that the figures describe exactly the instant in the documents."""
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)
