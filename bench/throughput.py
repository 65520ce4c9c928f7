"""Throughput of stage and publish, compared with the databases' limits and with other tools."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import bson
import psycopg
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from bench import baselines
from bench.helpers import conninfo, drop_databases, mongo_uri, open_meg
from bench.measure import Measurement, measure, rounds
from bench.results import Ratio, Section, ratios
from bi_ops.catalog.jobs import Field, FieldType, Job, LoadMode
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.catalog.slices import Slice
from bi_ops.load.publish import publish
from bi_ops.load.stage import stage
from bi_ops.load.staged_loads import Load, LoadSettings, LoadStates
from bi_ops.mongo.store import DagRunRef, Store
from dev import demo_meg, embedded_stack

_COLUMNS = {
    "form_id": FieldType.INTEGER,
    "form_name": FieldType.TEXT,
    "institution_id": FieldType.INTEGER,
    "institution_name": FieldType.TEXT,
    "form_type": FieldType.TEXT,
    "submissions": FieldType.INTEGER,
    "submitters": FieldType.INTEGER,
    "wards": FieldType.INTEGER,
    "last_submitted_at": FieldType.TIMESTAMP,
    "change_pct": FieldType.NUMBER,
}
_JOB = Job(
    name="bench_path",
    celery_task="",
    cadence=Cadence.MONTHLY,
    mode=LoadMode.REPLACE_PERIOD,
    key="{form_id}",
    summary="",
    fields=tuple(Field(name, type_, "") for name, type_ in _COLUMNS.items()),
    measure="submissions",
)
_MONTH = Period.parse("2026-10", Cadence.MONTHLY, "UTC")
_SLICE = Slice(_JOB, "eu", _MONTH.end, _MONTH)
DATABASE = "bench_path"
_CREATE_ROWS_SQL = """
CREATE TABLE IF NOT EXISTS result AS
SELECT
    n AS form_id,
    'Hand hygiene ' || n AS form_name,
    n % 997 AS institution_id,
    'St. Mary''s Hospital ' || n % 997 AS institution_name,
    (ARRAY['audit', 'survey', 'inspection'])[1 + n % 3] AS form_type,
    n % 1009 AS submissions,
    n % 31 AS submitters,
    n % 7 AS wards,
    timestamptz '2026-10-01' + n * interval '2 seconds' AS last_submitted_at,
    CASE WHEN n % 3 > 0 THEN round((n % 1009) / 7.0, 2)::double precision END AS change_pct
FROM generate_series(1, {rows}::bigint) AS n
"""
_MAX_ROWS = 1_000_000
_READ_LIMIT = "binary COPY to nowhere"
_WRITE_LIMIT = "insert of encoded documents"
_HOOKS = "get_records, insert_many"
_STAGE, _PUBLISH = "stage", "publish"
_PUBLISH_UNCHANGED, _PUBLISH_TENTH = "publish again, unchanged", "publish again, a tenth changed"
_BASELINES: Mapping[str, Callable[..., None]] = {
    _READ_LIMIT: baselines.copy_to_null,
    "ADBC, pymongoarrow": baselines.pymongoarrow_adbc,
    "dlt": baselines.dlt_pipeline,
    _HOOKS: baselines.get_records_insert_many,
}


@dataclass(frozen=True)
class Candidates:
    """The ways to load a number of rows that are compared."""

    servers: embedded_stack.DatabaseServers
    rows: int

    @property
    def postgres(self) -> str:
        return conninfo(self.servers.postgres, DATABASE)

    @property
    def mongo(self) -> str:
        return mongo_uri(self.servers.mongo)

    def sql(self, changed: str = "0") -> str:
        columns = ", ".join(
            f"submissions + {changed} AS submissions" if name == "submissions" else name for name in _COLUMNS
        )
        return f"SELECT {columns} FROM result WHERE form_id <= {self.rows}"

    def reset(self) -> None:
        """Empty both databases, and create the indexes that the reports use."""
        drop_databases(self.servers)
        with self.servers.mongo_admin.client() as client:
            live = client[embedded_stack.LIVE_DATABASE][_JOB.name]
            live.create_index([("period", 1), ("region", 1)])
            live.create_index("institution_name")
            Store(client, embedded_stack.LIVE_DATABASE).ensure_staging_collections(_JOB.name)

    def run_round(self, dlt: bool) -> dict[str, Measurement]:
        """Measure each candidate once. Those compared with each other run in a row, as a machine's speed drifts."""
        measurements: dict[str, Measurement] = {}
        self.reset()
        measurements[_WRITE_LIMIT] = measure(self.insert, setup=self.encode_documents)
        self.check_count(self.rows)
        for name, load_rows in _BASELINES.items():
            if name != "dlt" or dlt:
                self.reset()
                measurements[name] = measure(load_rows, self.mongo, self.postgres, self.sql(), [*_COLUMNS], _JOB.name)
                self.check_count(0 if name == _READ_LIMIT else self.rows)
        self.reset()
        measurements[_STAGE] = measure(self.stage, "first", self.sql())
        measurements[_PUBLISH] = measure(self.publish, "first")
        measure(self.stage, "again", self.sql())
        measurements[_PUBLISH_UNCHANGED] = measure(self.publish, "again")
        measure(self.stage, "tenth", self.sql("(form_id %% 10 = 0)::integer"))
        measurements[_PUBLISH_TENTH] = measure(self.publish, "tenth")
        self.check_count(self.rows)
        return measurements

    def check_count(self, expected: int) -> None:
        """Raise a RuntimeError unless this many documents are live."""
        with self.servers.mongo_admin.client() as client:
            count = client[embedded_stack.LIVE_DATABASE][_JOB.name].count_documents({})
        if count != expected:
            raise RuntimeError(f"{count} documents are live; expected {expected}")

    def encode_documents(self) -> list[RawBSONDocument]:
        """The documents that the package makes of the rows."""
        with psycopg.connect(self.postgres) as connection:
            rows = connection.execute(self.sql()).fetchall()
        documents = baselines.documents([*_COLUMNS], rows)
        return [RawBSONDocument(bson.encode(document)) for document in documents]

    def insert(self, documents: list[RawBSONDocument]) -> None:
        with MongoClient[Any](self.mongo) as client:
            for start in range(0, len(documents), 10_000):
                client[embedded_stack.LIVE_DATABASE][_JOB.name].insert_many(
                    documents[start : start + 10_000], ordered=False
                )

    def stage(self, run: str, sql: str) -> None:
        with (
            MongoClient[Any](self.mongo) as client,
            open_meg(self.servers.postgres, DATABASE) as meg,
        ):
            store = Store(client, embedded_stack.LIVE_DATABASE)
            load = _load(run)
            LoadStates(store).create(load, [[None]])
            for _ in stage(meg, store, load, 0, sql=sql):
                pass

    def publish(self, run: str) -> None:
        with MongoClient[Any](self.mongo) as client:
            publish(Store(client, embedded_stack.LIVE_DATABASE), _load(run), max_shrink=0.5)


def _load(run: str) -> Load:
    """The load of a run, with the same id in every process."""
    now = datetime.now(timezone.utc)
    return Load(_SLICE, DagRunRef("bi_monthly", run), LoadSettings("UTC", 10), now, id=run)


def prepare(servers: embedded_stack.DatabaseServers) -> None:
    """Create the rows, unless they are there already."""
    if not servers.postgres.database_exists(DATABASE):
        servers.postgres.create_database(DATABASE)
    with servers.postgres.connect(DATABASE) as connection:
        connection.execute(_CREATE_ROWS_SQL.format(rows=_MAX_ROWS))
        connection.execute(f"GRANT SELECT ON result TO {demo_meg.READER_ROLE}")
        connection.execute("VACUUM ANALYZE result")


def run(
    servers: embedded_stack.DatabaseServers, deadline: float, rows: int, max_rounds: int, dlt_rounds: int
) -> Section:
    """Measure all candidates in turn, several times.

    Args:
        servers: The databases.
        deadline: When to end, by `time.monotonic`.
        rows: The number of rows.
        max_rounds: The maximum number of rounds.
        dlt_rounds: The number of rounds with dlt, which takes as long as all the others together.
    """
    prepare(servers)
    candidates = Candidates(servers, rows)
    connections = servers.connections({"eu": DATABASE})
    os.environ |= connections
    round_measurements = [candidates.run_round(dlt=number < dlt_rounds) for number in rounds(max_rounds, deadline)]
    for name in connections:
        del os.environ[name]  # or an Airflow that is started later would inherit them
    section = Section(
        f"Throughput, {rows:,} rows", ("candidate", "thousand rows/s", "CPU seconds", "additional memory (MB)")
    )
    names = [*round_measurements[0]]
    for name in names:
        measurements = [round_[name] for round_ in round_measurements if name in round_]
        section.rows.append(
            [
                name,
                f"{rows / 1000 / statistics.median(measurement.seconds for measurement in measurements):,.0f}",
                f"{statistics.median(measurement.cpu for measurement in measurements):.2f}",
                f"{max(measurement.peak_mb for measurement in measurements):.0f}",
            ]
        )
    section.ratios = _get_ratios(round_measurements, rows)
    return section


def _get_ratios(round_measurements: list[dict[str, Measurement]], rows: int) -> list[Ratio]:
    def seconds(*names: str, rounds_: list[dict[str, Measurement]] = round_measurements) -> list[float]:
        return [sum(round_[name].seconds for name in names) for round_ in rounds_]

    label = f"{rows:,} rows"
    with_dlt = [round_ for round_ in round_measurements if "dlt" in round_]
    hooks, stage_and_publish = seconds(_HOOKS), seconds(_STAGE, _PUBLISH)
    memory = [
        max(round_[name].peak_mb for name in (_STAGE, _PUBLISH, _PUBLISH_UNCHANGED, _PUBLISH_TENTH))
        for round_ in round_measurements
    ]
    return [
        Ratio(f"{label}: speed of stage / {_HOOKS}", ratios(hooks, seconds(_STAGE)), min_goal=1.7),
        Ratio(
            f"{label}: speed of stage and publish / {_HOOKS}",
            ratios(hooks, stage_and_publish),
            min_goal=1.0,
            explanation="every document is written twice, the second time in a transaction; MongoDB alone takes two "
            "thirds to four fifths of the time; 0.7 would be acceptable",
        ),
        Ratio(
            f"{label}: speed of stage and publish / dlt",
            ratios(seconds("dlt", rounds_=with_dlt), seconds(_STAGE, _PUBLISH, rounds_=with_dlt)),
            min_goal=3,
            explanation="dlt spends its time in Python, MEG BI in MongoDB's transactions, slower on some machines",
        ),
        Ratio(
            f"{label}: speed of publish, unchanged / first",
            ratios(seconds(_PUBLISH), seconds(_PUBLISH_UNCHANGED)),
            min_goal=2,
            explanation="only MongoDB's writes are saved; both read the staged data and compare each document",
        ),
        Ratio(
            f"{label}: speed of publish, a tenth changed / first", ratios(seconds(_PUBLISH), seconds(_PUBLISH_TENTH))
        ),
        Ratio(f"{label}: speed of stage / the limit of reading", ratios(seconds(_READ_LIMIT), seconds(_STAGE))),
        Ratio(f"{label}: speed of publish / the limit of writing", ratios(seconds(_WRITE_LIMIT), seconds(_PUBLISH))),
        Ratio(f"{label}: memory of stage or publish / 50 MB", ratios(memory, [50.0] * len(memory)), max_goal=1),
    ]
