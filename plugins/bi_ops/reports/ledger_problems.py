"""What makes the reports' figures wrong or not final: unknown regions, mixed time zones, unfinished publishes."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database

from bi_ops.jobs import JOBS, job_named
from bi_ops.reports.execution import Query, Steps, execute
from bi_ops.settings import Settings
from bi_ops.slices import IdRange
from bi_ops.store import LEDGER, Document

_JOB_NAMES = frozenset(job.name for job in JOBS)
_MAX_NAMES = 6
_OUR_ID = "^[a-z][a-z0-9_]*:"
"""What the pipeline's own `_id`s start with: a region."""


@dataclass(frozen=True)
class LedgerProblem:
    """One thing that makes the reports' figures wrong, or not final.

    Attributes:
        kind: `region`: one that `MEG_REGIONS` does not name has figures; `timezone`: periods were cut in another time
            zone than the settings'; `publishing`: a slice is being replaced.
        subject: What it concerns: a region, or a job with its region.
        message: What was found.
        hint: What to do.
        command: The command that does it; empty where there is none.
    """

    kind: str
    subject: str
    message: str
    hint: str
    command: str = ""


def find_ledger_problems(database: Database[Document], settings: Settings) -> list[LedgerProblem]:
    """Regions that `MEG_REGIONS` does not name and that have figures, and periods cut in another time zone.

    Args:
        database: The live database.
        settings: The settings in force.
    """
    return execute(database, ledger_problem_steps(database.name, settings))


def ledger_problem_steps(database: str, settings: Settings) -> Steps[list[LedgerProblem]]:
    """The queries of `find_ledger_problems`.

    Args:
        database: The live database's name.
        settings: The settings in force.
    """
    rows = yield ledger_rows()
    documents = yield unknown_documents(settings)
    return ledger_problems(rows, documents, database, settings)


def ledger_problems(
    rows: Iterable[Mapping[str, Any]], documents: Iterable[Mapping[str, Any]], database: str, settings: Settings
) -> list[LedgerProblem]:
    """As `find_ledger_problems`, from what was read: the ledger's rows and what `unknown_documents` finds."""
    rows = list(rows)
    return [
        *_unknown_regions(rows, documents, database, settings),
        *_time_zones([row for row in rows if row["region"] in settings.regions], settings),
    ]


def ledger_rows() -> Query:
    """Reads the whole ledger, also of regions that `MEG_REGIONS` does not name."""
    return Query(LEDGER, [{"$match": {"job": {"$type": "string"}, "region": {"$type": "string"}}}], "the ledger")


def unknown_documents(settings: Settings) -> Query:
    """Counts the documents of regions that `MEG_REGIONS` does not name, by job and region.

    It reads what lies between the regions' own ranges of the `_id` index: usually nothing.
    """
    ranges = sorted((IdRange.with_prefix(f"{region}:") for region in settings.regions), key=lambda ids: ids.first)
    starts, ends = ["", *(ids.end for ids in ranges)], [*(ids.first for ids in ranges), None]
    gaps = [
        {"_id": {"$gte": start} if end is None else {"$gte": start, "$lt": end}}
        for start, end in zip(starts, ends, strict=True)
    ]
    first, *others = (_count_by_region(job.name, gaps) for job in JOBS)
    unions = [
        {"$unionWith": {"coll": job.name, "pipeline": stages}} for job, stages in zip(JOBS[1:], others, strict=True)
    ]
    return Query(JOBS[0].name, [*first, *unions], "regions")


def _count_by_region(job: str, gaps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"$match": {"$or": gaps, "_id": {"$regex": _OUR_ID}}},
        {"$group": {"_id": {"$arrayElemAt": [{"$split": ["$_id", ":"]}, 0]}, "documents": {"$sum": 1}}},
        {"$project": {"_id": 0, "job": {"$literal": job}, "region": "$_id", "documents": 1}},
    ]


def _unknown_regions(
    rows: Iterable[Mapping[str, Any]], documents: Iterable[Mapping[str, Any]], database: str, settings: Settings
) -> Iterator[LedgerProblem]:
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row["region"]] += 0
    for found in documents:
        counts[found["region"]] += found["documents"]
    for region in sorted(counts.keys() - set(settings.regions)):
        yield LedgerProblem(
            "region",
            f"region {region}",
            f"MEG_REGIONS does not name this region, and {counts[region]:,} documents of it are live: every total "
            "counts them, twice where the region has another name now",
            "If it is gone or has another name, remove its documents, as an account that may write. If another "
            "installation loads it, leave them.",
            _removal(region, database),
        )


def _removal(region: str, database: str) -> str:
    """The shell command that removes a region's documents and its rows of the ledger."""
    collections = json.dumps([*(job.name for job in JOBS), LEDGER])
    script = (
        f"for (const name of {collections}) "
        f"db.getSiblingDB({json.dumps(database)}).getCollection(name).deleteMany({{region: {json.dumps(region)}}})"
    )
    return f'mongosh "$MONGODB_URI" --eval {shlex.quote(script)}'


def _time_zones(rows: Iterable[Mapping[str, Any]], settings: Settings) -> Iterator[LedgerProblem]:
    by_slice: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        # The time zone is unknown where an earlier version published.
        if row.get("period") and row.get("timezone") and row["job"] in _JOB_NAMES:
            by_slice[row["job"], row["region"]][row["timezone"]].append(row["period"])
    for (job, region), zones in sorted(by_slice.items()):
        others = sorted(period for zone, periods in zones.items() if zone != settings.timezone for period in periods)
        if others:
            cut = "; ".join(f"{zone}: {_some(sorted(periods))}" for zone, periods in sorted(zones.items()))
            conf = {"period": others[0], "jobs": [job], "regions": [region]}
            yield LedgerProblem(
                "timezone",
                f"{job} {region}",
                f"periods were cut in {'different time zones' if len(zones) > 1 else 'another time zone'} ({cut}), and "
                f"BI_TIMEZONE is {settings.timezone}: their first and last hours overlap or are missing",
                "Load the periods of the other time zones again, one run for each, or set BI_TIMEZONE back.",
                f"airflow dags trigger {job_named(job).cadence.dag_id} --conf {shlex.quote(json.dumps(conf))}",
            )


def _some(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
