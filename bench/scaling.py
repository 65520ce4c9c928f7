"""How time, memory and storage grow with the number of forms, months and regions."""

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
_MAX_RUNS = 3
"""The most runs of one month or region, whose median is compared with a run of many."""


@dataclass(frozen=True)
class _MonthLoad:
    """Loads a month of one MEG without Airflow."""

    servers: embedded_stack.DatabaseServers
    database: str

    def read(self) -> None:
        """Plan the month, and stage its tasks one after the other."""
        meg = open_meg(self.servers.postgres, self.database)
        with self.servers.mongo.client() as client, meg:
            stage_slice(meg, Store(client, embedded_stack.LIVE_DATABASE), _SLICE, _RUN)

    def publish(self) -> None:
        """Publish the staged month."""
        with self.servers.mongo.client() as client:
            publish_slice(Store(client, embedded_stack.LIVE_DATABASE), _SLICE)

    def measure(self) -> tuple[Measurement, Measurement, float, int]:
        """The cost of reading and of publishing, the staged MB, and the number of live documents."""
        drop_databases(self.servers)
        read = measure(self.read)
        published = measure(self.publish)
        with self.servers.mongo_admin.client() as client:
            staged = client[f"{embedded_stack.LIVE_DATABASE}_staging"].command("collStats", JOB)["size"] / _MB
            return read, published, staged, client[embedded_stack.LIVE_DATABASE][JOB].estimated_document_count()


def seed(servers: embedded_stack.DatabaseServers, forms: int, months: int = 2) -> str:
    """Seed a MEG with about one session per form and month; returns its database."""
    database = f"bench_growth_{forms}"
    demo = demo_meg.DemoConfig(seed=1, forms=forms, until=_UNTIL, months=months, sessions_per_form_month=1)
    demo_meg.seed_database(servers.postgres, database, demo)
    return database


def run(
    servers: embedded_stack.DatabaseServers, sizes: Sequence[int], months: int, regions: int, rounds: int
) -> Section:
    """Load months with more forms, a catchup of many months, and many regions.

    Args:
        servers: The databases.
        sizes: The numbers of forms, in ascending order.
        months: The number of months.
        regions: The number of regions.
        rounds: How often each size is loaded without Airflow.
    """
    section = Section(
        "Scaling",
        ("forms", "documents", "read, s", "publish, s", "additional MB", "MB staged", "in Airflow, s", "tasks"),
    )
    databases = {forms: seed(servers, forms) for forms in sizes}
    loads_by_forms = {
        forms: [_MonthLoad(servers, database).measure() for _ in range(rounds)] for forms, database in databases.items()
    }
    name, runs = _MONTH.name, min(rounds, _MAX_RUNS)
    with run_airflow(servers, {}, MEG_REGIONS=REGION) as airflow:
        airflow.set_region_database(servers, databases[sizes[0]])
        drop_databases(servers)
        airflow.load_months(name)  # warm
        in_airflow: dict[int, float] = {}
        for forms, database in databases.items():
            airflow.set_region_database(servers, database)
            drop_databases(servers)
            in_airflow[forms] = airflow.load_months(name)
            tasks = airflow.count_stage_tasks()
            section.rows.append(
                [f"{forms:,}", *_table_cells(loads_by_forms[forms]), f"{in_airflow[forms]:.0f}", f"{tasks}"]
            )
        drop_databases(servers)
        airflow.set_region_database(servers, seed(servers, 10, months=months))
        one_month = [airflow.load_months(name) for _ in range(runs)]
        catchup = airflow.load_months(*(period.name for period in _MONTH.trailing(months)))
    names = [f"r{number}" for number in range(1, regions + 1)]
    with run_airflow(servers, dict.fromkeys(names, databases[sizes[0]])) as airflow:
        one_region = [airflow.load_months(name, regions=names[:1]) for _ in range(runs)]
        all_regions = airflow.load_months(name, regions=names)
    for forms in sizes[1:]:
        section.ratios += _form_ratios(forms // sizes[0], forms, loads_by_forms[sizes[0]], loads_by_forms[forms])
        factor = forms / sizes[0]
        ratio = in_airflow[forms] / in_airflow[sizes[0]] / factor
        section.ratios.append(
            Ratio(f"forms x{factor:g}, {forms:,}: a month in Airflow / {factor:g} times", (ratio,), max_goal=1)
        )
    section.ratios += [
        Ratio(
            f"months x{months}: catchup / {months} times one",
            (catchup / statistics.median(one_month) / months,),
            max_goal=1,
            explanation="runs differ by some seconds, and the scheduler starts each up to a second late",
        ),
        Ratio(
            f"regions x{regions}: a month of all / {regions} times one",
            (all_regions / statistics.median(one_region) / regions,),
            max_goal=1,
        ),
    ]
    return section


_Loads = Sequence[tuple[Measurement, Measurement, float, int]]


def _table_cells(loads: _Loads) -> list[str]:
    read = statistics.median(load[0].seconds for load in loads)
    published = statistics.median(load[1].seconds for load in loads)
    peak = max(max(load[0].peak_mb, load[1].peak_mb) for load in loads)
    return [f"{loads[0][3]:,}", f"{read:.1f}", f"{published:.2f}", f"{peak:.0f}", f"{loads[0][2]:.1f}"]


def _form_ratios(factor: int, forms: int, small: _Loads, large: _Loads) -> list[Ratio]:
    """Time and storage of the large load, each divided by `factor` times the small load's."""

    def make_ratio(
        name: str, value: Callable[[tuple[Measurement, Measurement, float, int]], float], explanation: str = ""
    ) -> Ratio:
        quotients = tuple(
            value(large_load) / value(small_load) / factor for small_load, large_load in zip(small, large, strict=True)
        )
        return Ratio(
            f"forms x{factor}, {forms:,}: {name} / {factor} times", quotients, max_goal=1, explanation=explanation
        )

    return [
        make_ratio("time of reading", lambda load: load[0].seconds),
        make_ratio("time of publish", lambda load: load[1].seconds),
        make_ratio("staged storage", lambda load: load[2], explanation="an id with more digits is longer"),
    ]
