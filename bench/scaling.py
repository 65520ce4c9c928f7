"""How time, memory and room grow with forms, months and regions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from bench.airflow_instance import JOB, run_airflow
from bench.helpers import REGION, drop_databases, open_meg, publish_slice, stage_slice
from bench.measure import Measurement, measure
from bench.results import Ratio, Section
from bi_ops.catalog.jobs import get_job
from bi_ops.catalog.periods import Cadence, Period
from bi_ops.catalog.slices import Slice
from bi_ops.mongo.store import DagRunRef, Store
from dev import demo_meg, embedded_stack

_UNTIL = date(2026, 11, 1)
_MONTH = Period.parse("2026-10", Cadence.MONTHLY, "UTC")
_SLICE = Slice(get_job(JOB), REGION, _MONTH.end, _MONTH)
_RUN = DagRunRef("bi_monthly", "scheduled__2026-11-01T00:00:00+00:00")
_MB = 2**20
_RUNS = 3
"""Of one month or region at most, of which the median is held against many at once."""


@dataclass(frozen=True)
class _Month:
    """A month of one MEG, loaded without Airflow."""

    servers: embedded_stack.DatabaseServers
    database: str

    def read(self) -> None:
        """Plan, and each task's chunks in turn."""
        opened = open_meg(self.servers.postgres, self.database)
        with self.servers.mongo.client() as client, opened:
            stage_slice(opened, Store(client, embedded_stack.LIVE_DATABASE), _SLICE, _RUN)

    def publish(self) -> None:
        """Publish what was read."""
        with self.servers.mongo.client() as client:
            publish_slice(Store(client, embedded_stack.LIVE_DATABASE), _SLICE)

    def costs(self) -> tuple[Measurement, Measurement, float, int]:
        """Of reading and of publishing, with the MB that are staged and how many documents are live."""
        drop_databases(self.servers)
        read = measure(self.read)
        published = measure(self.publish)
        with self.servers.mongo_admin.client() as client:
            staged = client[f"{embedded_stack.LIVE_DATABASE}_staging"].command("collStats", JOB)["size"] / _MB
            return read, published, staged, client[embedded_stack.LIVE_DATABASE][JOB].estimated_document_count()


def seed(servers: embedded_stack.DatabaseServers, forms: int, months: int = 2) -> str:
    """A MEG with a session a form and month, about; returns its database."""
    database = f"bench_growth_{forms}"
    demo = demo_meg.DemoConfig(seed=1, forms=forms, until=_UNTIL, months=months, sessions_per_form_month=1)
    demo_meg.seed_database(servers.postgres, database, demo)
    return database


def run(
    servers: embedded_stack.DatabaseServers, sizes: Sequence[int], months: int, regions: int, rounds: int
) -> Section:
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
    with run_airflow(servers, {}, MEG_REGIONS=REGION) as airflow:
        airflow.set_region_database(servers, databases[sizes[0]])
        drop_databases(servers)
        airflow.load_months(name)  # warm
        in_airflow: dict[int, float] = {}
        for forms, database in databases.items():
            airflow.set_region_database(servers, database)
            drop_databases(servers)
            in_airflow[forms] = airflow.load_months(name)
            section.rows.append([f"{forms:,}", *_row(loaded[forms]), f"{in_airflow[forms]:.0f}", str(airflow.tasks())])
        drop_databases(servers)
        airflow.set_region_database(servers, seed(servers, 10, months=months))
        one = [airflow.load_months(name) for _ in range(runs)]
        catchup = airflow.load_months(*(period.name for period in _MONTH.trailing(months)))
    names = [f"r{number}" for number in range(1, regions + 1)]
    with run_airflow(servers, dict.fromkeys(names, databases[sizes[0]])) as airflow:
        first = [airflow.load_months(name, regions=names[:1]) for _ in range(runs)]
        all_regions = airflow.load_months(name, regions=names)
    for forms in sizes[1:]:
        section.figures += _of_forms(forms // sizes[0], forms, loaded[sizes[0]], loaded[forms])
        times = forms / sizes[0]
        ratio = in_airflow[forms] / in_airflow[sizes[0]] / times
        section.figures.append(
            Ratio(f"forms x{times:g}, {forms:,}: a month in Airflow / {times:g} times", (ratio,), max_goal=1)
        )
    section.figures += [
        Ratio(
            f"months x{months}: catchup / {months} times one",
            (catchup / statistics.median(one) / months,),
            max_goal=1,
            explanation="runs differ by some seconds, and the scheduler starts each up to a second late",
        ),
        Ratio(
            f"regions x{regions}: a month of all / {regions} times one",
            (all_regions / statistics.median(first) / regions,),
            max_goal=1,
        ),
    ]
    return section


_Loads = Sequence[tuple[Measurement, Measurement, float, int]]


def _row(loads: _Loads) -> list[str]:
    read = statistics.median(load[0].seconds for load in loads)
    published = statistics.median(load[1].seconds for load in loads)
    peak = max(max(load[0].peak, load[1].peak) for load in loads)
    return [f"{loads[0][3]:,}", f"{read:.1f}", f"{published:.2f}", f"{peak:.0f}", f"{loads[0][2]:.1f}"]


def _of_forms(times: int, forms: int, small: _Loads, large: _Loads) -> list[Ratio]:
    """Time and room, each against so many times the small one's."""

    def figure(what: str, of: Callable[[tuple[Measurement, Measurement, float, int]], float], why: str = "") -> Ratio:
        found = tuple(of(after) / of(before) / times for before, after in zip(small, large, strict=True))
        return Ratio(f"forms x{times}, {forms:,}: {what} / {times} times", found, max_goal=1, explanation=why)

    return [
        figure("time of reading", lambda load: load[0].seconds),
        figure("time of publish", lambda load: load[1].seconds),
        figure("room staged", lambda load: load[2], why="an id of more digits is longer"),
    ]
