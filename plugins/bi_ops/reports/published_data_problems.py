"""Finds in the ledger what makes the reports wrong or not final: unknown regions, mixed time zones, open publishes."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from pymongo.database import Database

from bi_ops.catalog.jobs import JOBS, get_job
from bi_ops.catalog.slices import IdRange
from bi_ops.errors import abbreviate
from bi_ops.mongo.store import LEDGER_COLLECTION, Document
from bi_ops.reports.query_execution import Query, Steps, execute
from bi_ops.settings import Settings

_JOB_NAMES = frozenset(job.name for job in JOBS)
_MAX_NAMES = 6
_CLOCK_TOLERANCE = timedelta(minutes=1)
_OUR_ID = "^[a-z][a-z0-9_]*:"
"""How the pipeline's own `_id`s start: with a region."""


@dataclass(frozen=True)
class LedgerProblem:
    """One thing that makes the reports' figures wrong, or not final.

    Attributes:
        kind: `region`: one that `MEG_REGIONS` does not name has figures; `timezone`: periods were cut in another time
            zone than the settings'; `publishing`: a slice is being replaced; `future`: a slice that was published by a
            clock that was ahead, and keeps later loads out.
        subject: What it concerns: a region, or a job with its region.
        message: What happened.
        hint: What to do.
        command: The command that does it; empty if there is none.
    """

    kind: str
    subject: str
    message: str
    hint: str
    command: str = ""


def find_ledger_problems(
    database: Database[Document], settings: Settings, now: datetime | None = None
) -> list[LedgerProblem]:
    """What is wrong with the published figures as a whole, from the ledger and the `_id`s of the documents.

    Args:
        database: The live database.
        settings: The settings in force.
        now: The present.
    """
    return execute(database, _ledger_problem_steps(database.name, settings, now or datetime.now(timezone.utc)))


def _ledger_problem_steps(database: str, settings: Settings, now: datetime) -> Steps[list[LedgerProblem]]:
    rows = yield ledger_rows()
    documents = yield unknown_documents(settings)
    return ledger_problems(rows, documents, database, settings, now)


def ledger_problems(
    rows: Iterable[Mapping[str, Any]],
    documents: Iterable[Mapping[str, Any]],
    database: str,
    settings: Settings,
    now: datetime,
) -> list[LedgerProblem]:
    """As `find_ledger_problems`, from the ledger's rows and the result of `unknown_documents`."""
    rows = list(rows)
    known = [row for row in rows if row["region"] in settings.regions]
    return [
        *_unknown_regions(rows, documents, database, settings),
        *_time_zones(known, settings),
        *_future(known, now),
        *(_unfinished(row) for row in known if row.get("publishing")),
    ]


def ledger_rows() -> Query:
    """Reads the whole ledger, also of regions that `MEG_REGIONS` does not name."""
    return Query(
        LEDGER_COLLECTION, [{"$match": {"job": {"$type": "string"}, "region": {"$type": "string"}}}], "the ledger"
    )


def unknown_documents(settings: Settings) -> Query:
    """Counts the documents of regions that `MEG_REGIONS` does not name, by job and region.

    It reads the gaps between the regions' own ranges of the `_id` index: usually nothing.
    """
    ranges = sorted((IdRange.with_prefix(f"{region}:") for region in settings.regions), key=lambda ids: ids.start)
    starts, ends = ["", *(ids.end for ids in ranges)], [*(ids.start for ids in ranges), None]
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
    for count in documents:
        counts[count["region"]] += count["documents"]
    for region in sorted(counts.keys() - set(settings.regions)):
        yield LedgerProblem(
            "region",
            f"region {region}",
            f"MEG_REGIONS does not list this region, but {counts[region]:,} documents of it are live: every total "
            "includes them, twice if the region was renamed",
            "If the region was removed or renamed, delete its documents with an account that may write. If another "
            "installation loads it, keep them.",
            _removal(region, database),
        )


def _removal(region: str, database: str) -> str:
    """The shell command that removes a region's documents and its rows of the ledger."""
    collections = json.dumps([*(job.name for job in JOBS), LEDGER_COLLECTION])
    script = (
        f"for (const name of {collections}) "
        f"db.getSiblingDB({json.dumps(database)}).getCollection(name).deleteMany({{region: {json.dumps(region)}}})"
    )
    return f'mongosh "$MONGODB_URI" --eval {shlex.quote(script)}'


def _time_zones(rows: Iterable[Mapping[str, Any]], settings: Settings) -> Iterator[LedgerProblem]:
    by_slice: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        # Rows that an earlier version published have no time zone.
        if row.get("period") and row.get("timezone") and row["job"] in _JOB_NAMES:
            by_slice[row["job"], row["region"]][row["timezone"]].append(row["period"])
    for (job, region), zones in sorted(by_slice.items()):
        others = sorted(period for zone, periods in zones.items() if zone != settings.timezone for period in periods)
        if others:
            cut = "; ".join(
                f"{zone}: {abbreviate(sorted(periods), _MAX_NAMES)}" for zone, periods in sorted(zones.items())
            )
            conf = {"period": others[0], "jobs": [job], "regions": [region]}
            yield LedgerProblem(
                "timezone",
                f"{job} {region}",
                f"periods were cut in {'different time zones' if len(zones) > 1 else 'another time zone'} ({cut}), and "
                f"BI_TIMEZONE is {settings.timezone}: the first and last hours of these periods overlap or are missing",
                "Load the periods of the other time zones again, one run for each, or restore BI_TIMEZONE.",
                f"airflow dags trigger {get_job(job).cadence.dag_id} --conf {shlex.quote(json.dumps(conf))}",
            )


def _future(rows: Iterable[Mapping[str, Any]], now: datetime) -> Iterator[LedgerProblem]:
    for row in rows:
        for name, message in (("as_of", "an as-of in the future"), ("read_at", "read from MEG in the future")):
            if row["job"] in _JOB_NAMES and row.get(name) and row[name] > now + _CLOCK_TOLERANCE:
                yield LedgerProblem(
                    "future",
                    _subject(row),
                    f"{message}: {row[name]:%Y-%m-%d %H:%M:%S} UTC, by run {row.get('run_id')}; until then every later "
                    "load is skipped as older",
                    "Correct the clock that was ahead, a worker's or MEG's, then load the slice again with force.",
                    _forced_load(row),
                )
                break


def _forced_load(row: Mapping[str, Any]) -> str:
    conf = {"jobs": [row["job"]], "regions": [row["region"]], "force": True}
    if row.get("period"):
        conf["period"] = row["period"]
    return f"airflow dags trigger {get_job(row['job']).cadence.dag_id} --conf {shlex.quote(json.dumps(conf))}"


def _unfinished(row: Mapping[str, Any]) -> LedgerProblem:
    state = row["publishing"]
    return LedgerProblem(
        "publishing",
        _subject(row),
        f"publish in progress: {state.get('documents') or 0:,} of {state.get('of') or 0:,} documents are new, the "
        "rest are from the previous load",
        f"Wait for run {state.get('run_id')}. If it has failed, clear its task publish.",
    )


def _subject(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (row["job"], row["region"], row.get("period"))))
