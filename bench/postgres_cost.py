"""Chunking overhead: the cost of reading forms in chunks of ten compared with one pass, and with other indexes."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

from bench.helpers import open_meg
from bench.measure import processor_seconds, rounds
from bench.results import Ratio, Section, ratios
from bi_ops.catalog.jobs import get_job
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.catalog.slices import Slice
from bi_ops.catalog.sql_templates import render_sql
from bi_ops.load.plan import split_into_tasks
from bi_ops.load.staged_loads import Chunk
from bi_ops.meg.reader import MegReader
from bi_ops.settings import Settings
from dev import demo_meg
from dev.embedded_stack import DatabaseServers
from dev.postgres import Postgres

OBSERVATIONS = 5_000_000
_MONTHS = 24
_UNTIL = date(2026, 11, 1)
_MONTH = Period.parse("2026-10", Cadence.MONTHLY, "UTC")
_SLICE = Slice(get_job("monthly_submissions"), "eu", _MONTH.end, _MONTH)
_CHUNK_CONDITION = re.compile(r"(\w+\.)?form_id = ANY\(chunk\.form_ids::bigint\[\]\)")
_CONDITION_COUNT = 2
"""One condition on the submissions, one on the forms."""
_EXPLAINED_CHUNKS = 5
"""How many chunks are explained: without an index each takes as long as a pass over everything."""
_INDEXES = {
    "both recommended": "",
    "none on sessions by form": "DROP INDEX megforms_auditsession_form_submitted",
    "sessions by time alone": "DROP INDEX megforms_auditsession_form_submitted;"
    " CREATE INDEX ON megforms_auditsession (submitted_at)",
    "sessions by form alone": "DROP INDEX megforms_auditsession_form_submitted;"
    " CREATE INDEX ON megforms_auditsession (form_id)",
    "none on observations by session": "DROP INDEX megforms_observation_session",
}


@dataclass(frozen=True)
class _Cost:
    seconds: float
    cpu: float


@dataclass(frozen=True)
class _Reader:
    """Reads a month of one MEG in different ways."""

    server: Postgres
    database: str
    sql: str

    @property
    def ids(self) -> list[int]:
        with self._meg() as meg, meg.query(render_sql("list_forms.sql"), _SLICE.sql_parameters) as result:
            return [row[0] for batch in result.batches for row in batch]

    def measure_one_pass(self) -> _Cost:
        """Read all forms with one GROUP BY, as if there were no chunks."""
        sql, count = _CHUNK_CONDITION.subn("TRUE", self.sql)
        if count != _CONDITION_COUNT:
            raise RuntimeError(f"The query has {count} conditions on the chunk's forms; expected {_CONDITION_COUNT}.")
        return self._cost([["{}"]], sql)

    def measure_tasks(self, tasks: Sequence[Sequence[Chunk]]) -> _Cost:
        """Read as the stage tasks do: each with its own connection, and one query for all its chunks."""
        return self._cost([_literals(chunks) for chunks in tasks], self.sql)

    def explain(self, chunks: Sequence[Chunk], change: str) -> tuple[float, str]:
        """The ms that a chunk takes after this change of the indexes, and the scans of sessions and observations."""
        parameters = {**_SLICE.sql_parameters, "timezone": "UTC", "chunks": _literals(chunks)}
        with self.server.connect(self.database) as connection, connection.transaction(force_rollback=True):
            connection.execute(change or "SELECT 1")
            connection.execute("ANALYZE megforms_auditsession; SET LOCAL jit = off")
            [(plan,)] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {self.sql}", parameters).fetchall()
        return plan[0]["Execution Time"] / len(chunks), "; ".join(_scans(plan[0]["Plan"]))

    def _read(self, tasks: Sequence[Sequence[str]], sql: str) -> None:
        for chunks in tasks:
            parameters = {**_SLICE.sql_parameters, "timezone": "UTC", "chunks": list(chunks)}
            with self._meg() as meg, meg.query(sql, parameters) as result:
                for _ in result.batches:
                    pass

    def _meg(self) -> MegReader:
        return open_meg(self.server, self.database)

    def _cost(self, tasks: Sequence[Sequence[str]], sql: str) -> _Cost:
        start_cpu, start = processor_seconds(self.server.pid), time.perf_counter()
        self._read(tasks, sql)
        seconds = time.perf_counter() - start
        time.sleep(0.1)  # until the last backend has ended, and its time is counted
        return _Cost(seconds, processor_seconds(self.server.pid) - start_cpu)


def _literals(chunks: Sequence[Chunk]) -> list[str]:
    return [f"{{{','.join(map(str, chunk or ()))}}}" for chunk in chunks]


def _scans(node: dict[str, Any]) -> Iterator[str]:
    """The scans of the two large tables in a plan."""
    if node.get("Relation Name") in ("megforms_auditsession", "megforms_observation"):
        index = node.get("Index Name") or next((child["Index Name"] for child in node.get("Plans", ())), "")
        yield f"{node['Node Type']} {node['Relation Name']} {index}".strip()
    for child in node.get("Plans", ()):
        yield from _scans(child)


def seed(server: Postgres, forms: int, observations: int = OBSERVATIONS) -> str:
    """Seed a MEG with this many forms, and about this many observations in two years; returns its database."""
    database = f"bench_{forms}_{observations}"
    sessions = 60 * 2_000 / forms * observations / OBSERVATIONS  # 2,000 forms with 60 a month have five million
    demo = demo_meg.DemoConfig(seed=1, forms=forms, until=_UNTIL, months=_MONTHS, sessions_per_form_month=sessions)
    if demo_meg.seed_database(server, database, demo):
        with server.connect(database) as connection:
            connection.execute("VACUUM ANALYZE")
    return database


def run(servers: DatabaseServers, deadline: float, sizes: Sequence[int], max_rounds: int, observations: int) -> Section:
    """Compare chunks with one pass, for each number of forms.

    Args:
        servers: The databases.
        deadline: When to end, by `time.monotonic`.
        sizes: The numbers of forms.
        max_rounds: The maximum number of rounds.
        observations: The approximate number of observations.
    """
    section = Section(
        f"Chunking overhead in MEG, {observations:,} observations",
        ("forms", "chunks", "tasks", "one pass, s", "in tasks, s", "one pass, CPU s", "in tasks, CPU s"),
    )
    max_tasks = Settings.from_env({}).max_mapped_tasks
    sql = render_sql("monthly_submissions.sql")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        databases = pool.map(lambda forms: seed(servers.postgres, forms, observations), sizes)
    for forms, database in zip(sizes, databases, strict=True):
        reader = _Reader(servers.postgres, database, sql)
        tasks = split_into_tasks(reader.ids, forms_per_chunk=10, max_tasks=max_tasks)
        reader.measure_one_pass()  # into the cache
        costs = [(reader.measure_one_pass(), reader.measure_tasks(tasks)) for _ in rounds(max_rounds, deadline)]
        one_pass_costs, chunked_costs = zip(*costs, strict=True)
        medians = [statistics.median(cost.seconds for cost in column) for column in (one_pass_costs, chunked_costs)]
        medians += [statistics.median(cost.cpu for cost in column) for column in (one_pass_costs, chunked_costs)]
        section.rows.append(
            [f"{forms:,}", f"{sum(map(len, tasks)):,}", str(len(tasks)), *(f"{median:.2f}" for median in medians)]
        )
        section.ratios += [
            Ratio(
                f"{forms:,} forms: PostgreSQL's CPU, chunks of ten / one pass",
                ratios([cost.cpu for cost in chunked_costs], [cost.cpu for cost in one_pass_costs]),
                max_goal=1.5,
                explanation="each task connects and plans once, and a chunk looks up what one pass hashes once",
            ),
            Ratio(
                f"{forms:,} forms: wall time, chunks of ten one after the other / one pass",
                ratios([cost.seconds for cost in chunked_costs], [cost.seconds for cost in one_pass_costs]),
                max_goal=1.5,
                explanation="the processor time above, and 32 tasks that connect one after the other",
            ),
        ]
    section.notes = ["Milliseconds for a chunk of ten forms, by the indexes (`EXPLAIN ANALYZE`, largest MEG):", ""]
    for name, change in _INDEXES.items():
        ms, scans = reader.explain(tasks[0][:_EXPLAINED_CHUNKS], change)
        section.notes.append(f"- {name}: {ms:,.1f} ms. {scans}.")
    return section
