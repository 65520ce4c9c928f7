"""How time, memory and room grow with forms, months and regions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from bench.figures import Figure, Section
from bench.installation import JOB, installed
from bench.loading import REGION, empty, open_meg, publish_slice, read_slice
from bench.runs import Cost, cost_of
from bi_ops.jobs import job_named
from bi_ops.periods import Cadence, Period
from bi_ops.slices import Slice
from bi_ops.store import Run, Store
from dev import meg, stack

_UNTIL = date(2026, 11, 1)
_MONTH = Period.parse("2026-10", Cadence.MONTHLY, "UTC")
_SLICE = Slice(job_named(JOB), REGION, _MONTH.end, _MONTH)
_RUN = Run("bi_monthly", "scheduled__2026-11-01T00:00:00+00:00")
_MB = 2**20
_RUNS = 3
"""Of one month or region at most, of which the median is held against many at once."""


@dataclass(frozen=True)
class _Month:
    """A month of one MEG, loaded without Airflow."""

    servers: stack.Databases
    database: str

    def read(self) -> None:
        """Plan, and each task's chunks in turn."""
        opened = open_meg(self.servers.postgres, self.database)
        with self.servers.mongo.client() as client, opened:
            read_slice(opened, Store(client, stack.DATABASE), _SLICE, _RUN)

    def publish(self) -> None:
        """Publish what was read."""
        with self.servers.mongo.client() as client:
            publish_slice(Store(client, stack.DATABASE), _SLICE)

    def costs(self) -> tuple[Cost, Cost, float, int]:
        """Of reading and of publishing, with the MB that are staged and how many documents are live."""
        empty(self.servers)
        read = cost_of(self.read)
        published = cost_of(self.publish)
        with self.servers.mongo_admin.client() as client:
            staged = client[f"{stack.DATABASE}_staging"].command("collStats", JOB)["size"] / _MB
            return read, published, staged, client[stack.DATABASE][JOB].estimated_document_count()


def seed(servers: stack.Databases, forms: int, months: int = 2) -> str:
    """A MEG with a session a form and month, about; returns its database."""
    database = f"bench_growth_{forms}"
    demo = meg.Demo(seed=1, forms=forms, until=_UNTIL, months=months, sessions_per_form_month=1)
    meg.seed(servers.postgres, database, demo)
    return database


def measure(servers: stack.Databases, sizes: Sequence[int], months: int, regions: int, rounds: int) -> Section:
    """Ten and a hundred times the forms, two years of months, eight regions.

    Args:
        servers: The databases.
        sizes: Numbers of forms, the smallest first.
        months: How many months.
        regions: How many regions.
        rounds: How often each size is loaded without Airflow.
    """
    section = Section(
        "Growth",
        ("forms", "documents", "read, s", "publish, s", "MB more than at rest", "MB staged", "in Airflow, s", "tasks"),
    )
    databases = {forms: seed(servers, forms) for forms in sizes}
    loaded = {
        forms: [_Month(servers, database).costs() for _ in range(rounds)] for forms, database in databases.items()
    }
    name, runs = _MONTH.name, min(rounds, _RUNS)
    with installed(servers, {}, MEG_REGIONS=REGION) as airflow:
        airflow.read_from(servers, databases[sizes[0]])
        empty(servers)
        airflow.months(name)  # warm
        in_airflow: dict[int, float] = {}
        for forms, database in databases.items():
            airflow.read_from(servers, database)
            empty(servers)
            in_airflow[forms] = airflow.months(name)
            section.rows.append([f"{forms:,}", *_row(loaded[forms]), f"{in_airflow[forms]:.0f}", str(airflow.tasks())])
        empty(servers)
        airflow.read_from(servers, seed(servers, 10, months=months))
        one = [airflow.months(name) for _ in range(runs)]
        catchup = airflow.months(*(period.name for period in _MONTH.last(months)))
    names = [f"r{number}" for number in range(1, regions + 1)]
    with installed(servers, dict.fromkeys(names, databases[sizes[0]])) as airflow:
        first = [airflow.months(name, regions=names[:1]) for _ in range(runs)]
        all_regions = airflow.months(name, regions=names)
    for forms in sizes[1:]:
        section.figures += _of_forms(forms // sizes[0], forms, loaded[sizes[0]], loaded[forms])
        times = forms / sizes[0]
        ratio = in_airflow[forms] / in_airflow[sizes[0]] / times
        section.figures.append(
            Figure(f"forms x{times:g}, {forms:,}: a month in Airflow / {times:g} times", (ratio,), most=1)
        )
    section.figures += [
        Figure(
            f"months x{months}: catchup / {months} times one",
            (catchup / statistics.median(one) / months,),
            most=1,
            why="runs differ by some seconds, and the scheduler begins each up to a second after the one before",
        ),
        Figure(
            f"regions x{regions}: a month of all / {regions} times one",
            (all_regions / statistics.median(first) / regions,),
            most=1,
        ),
    ]
    return section


_Loads = Sequence[tuple[Cost, Cost, float, int]]


def _row(loads: _Loads) -> list[str]:
    read = statistics.median(load[0].seconds for load in loads)
    published = statistics.median(load[1].seconds for load in loads)
    peak = max(max(load[0].peak, load[1].peak) for load in loads)
    return [f"{loads[0][3]:,}", f"{read:.1f}", f"{published:.2f}", f"{peak:.0f}", f"{loads[0][2]:.1f}"]


def _of_forms(times: int, forms: int, small: _Loads, large: _Loads) -> list[Figure]:
    """Time and room, each against so many times the small one's."""

    def figure(what: str, of: Callable[[tuple[Cost, Cost, float, int]], float], why: str = "") -> Figure:
        found = tuple(of(after) / of(before) / times for before, after in zip(small, large, strict=True))
        return Figure(f"forms x{times}, {forms:,}: {what} / {times} times", found, most=1, why=why)

    return [
        figure("time of reading", lambda load: load[0].seconds),
        figure("time of publish", lambda load: load[1].seconds),
        figure("room staged", lambda load: load[2], why="an id of more digits is longer"),
    ]
