"""Lists the loads that the ledger knows, the newest first: what was published when, and by which run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from bi_ops.catalog.jobs import JOBS
from bi_ops.reports.airflow_paths import dag_run_path

MAX_LOADS = 200
_DAG_IDS = {job.name: job.cadence.dag_id for job in JOBS}
_TRIGGERS = {"scheduled": "schedule", "backfill": "backfill", "bi_backfill": "backfill"}
"""What started a run, by the first part of its id."""


@dataclass(frozen=True)
class PublishedLoad:
    """The load that a slice has now; the ledger keeps no earlier one.

    Attributes:
        job: The job.
        region: The region.
        as_of: The period, or the as-of instant in ISO 8601.
        published_at: When it was published, in ISO 8601.
        documents: How many documents the slice has.
        previous_documents: How many it had before; None if the ledger does not say.
        trigger: What started the run: `schedule`, `backfill` or `manual`.
        forced: Whether the guards were switched off.
        run_path: The path in Airflow's UI of the DAG run.
    """

    job: str
    region: str
    as_of: str
    published_at: str
    documents: int
    previous_documents: int | None
    trigger: str
    forced: bool
    run_path: str


def list_loads(ledger: Iterable[Mapping[str, Any]]) -> list[PublishedLoad]:
    """The newest loads in the ledger's rows, at most `MAX_LOADS`."""
    published = (row for row in ledger if row.get("published_at") and row["job"] in _DAG_IDS)
    return [_load(row) for row in nlargest(MAX_LOADS, published, key=lambda row: row["published_at"])]


def _load(row: Mapping[str, Any]) -> PublishedLoad:
    run_id = row["run_id"]
    return PublishedLoad(
        job=row["job"],
        region=row["region"],
        as_of=row.get("period") or row["as_of"].isoformat(),
        published_at=row["published_at"].isoformat(),
        documents=row["documents"],
        previous_documents=row.get("previous_documents"),
        trigger=_TRIGGERS.get(run_id.partition("__")[0], "manual"),
        forced=bool(row.get("forced")),
        run_path=dag_run_path(_DAG_IDS[row["job"]], run_id),
    )
