"""Slices: what one publish replaces, and the `_id` range in which its documents lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from bi_ops.jobs import Job, Mode, job_named
from bi_ops.periods import Period


@dataclass(frozen=True)
class IdRange:
    """The string `_id`s from `first` up to, not including, `end`."""

    first: str
    end: str

    @classmethod
    def with_prefix(cls, prefix: str) -> IdRange:
        """Every `_id` that starts with `prefix`."""
        return cls(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))

    @property
    def filter(self) -> dict[str, Any]:
        """The MongoDB filter for this range, served by the `_id` index alone."""
        return {"_id": {"$gte": self.first, "$lt": self.end}}

    def split(self, at: list[str]) -> Iterator[IdRange]:
        """The consecutive ranges that this one falls into when cut before each `_id` of `at`, sorted."""
        bounds = [self.first, *at, self.end]
        return (IdRange(first, end) for first, end in pairwise(bounds))


@dataclass(frozen=True)
class Slice:
    """The documents of one collection that one publish replaces.

    Attributes:
        job: The job whose collection it is.
        region: The region it describes.
        as_of: The instant it describes; of a job that appends, its period's end.
        period: The period it covers; None where the job takes a snapshot.
    """

    job: Job
    region: str
    as_of: datetime
    period: Period | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.job.name, self.region, self.period.name if self.period else "")))

    @property
    def prefix(self) -> str:
        """What the `_id` of each of its documents starts with: `region:period:` or `region:`."""
        if self.job.mode is Mode.APPEND and self.period:
            return f"{self.region}:{self.period.name}:"
        return f"{self.region}:"

    @property
    def ledger_id(self) -> str:
        """Its `_id` in the ledger: `job:region:period` or `job:region`."""
        return f"{self.job.name}:{self.prefix[:-1]}"

    @property
    def ids(self) -> IdRange:
        """The `_id` range of its documents, which holds nothing else."""
        return IdRange.with_prefix(self.prefix)

    def document_id(self, *key: object) -> str:
        """The `_id` of the document with this key."""
        return self.prefix + ":".join(map(str, key))

    @property
    def parameters(self) -> dict[str, Any]:
        """What the job's SQL may bind about the slice, beside `form_ids` and `timezone`."""
        values: dict[str, Any] = {"as_of": self.as_of}
        if self.period:
            values["period_start"] = self.period.start
            values["period_end"] = self.period.end
            values["previous_start"] = self.period.before().start
        return values

    def to_json(self) -> dict[str, Any]:
        """The slice as plain values, for XCom and for Airflow's page of rendered templates."""
        return {
            "job": self.job.name,
            "region": self.region,
            "period": self.period.name if self.period else None,
            "as_of": self.as_of.isoformat(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], timezone: str) -> Slice:
        """The inverse of `to_json`; `timezone` is the settings'."""
        job = job_named(value["job"])
        period = Period.parse(value["period"], job.cadence, timezone) if value["period"] else None
        return cls(job, value["region"], datetime.fromisoformat(value["as_of"]), period)
