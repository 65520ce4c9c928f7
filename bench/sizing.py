"""`make bench-sizing`: measures the costs in dev/sizing_costs.py, and compares a larger run with the prediction."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence

from rich.table import Table

from bench.airflow_instance import WORK_DIR, AirflowInstance, run_airflow
from bench.helpers import drop_databases
from bench.load_costs import (
    MONTHS,
    LoadCost,
    count_observations,
    create_live_collections,
    measure_load,
    measure_storage,
    mongo_bytes,
    seed,
)
from bench.run_costs import RunCost, measure_run
from bi_ops.catalog.jobs import JOBS
from bi_ops.catalog.periods import Cadence
from bi_ops.settings import Settings
from dev import embedded_stack
from dev.console import console
from dev.embedded_stack import DatabaseServers
from dev.processes import StackError
from dev.sizing_costs import JOB_COSTS
from dev.sizing_model import Installation, Run

_CACHE_GB = 2.0
_MIN_WIDTH = 150
_ROUNDS = 2
_SMALL, _MEDIUM, _FEW_SESSIONS, _MANY_SESSIONS = 2_000, 10_000, 1, 8
_ONE_CHUNK = 10
_MANY_REGIONS = 100
_CHECK_SESSIONS = 5
_MB = 1e6
_PERIODS = {Cadence.MONTHLY: "2026-10", Cadence.QUARTERLY: "2026-Q3", Cadence.WEEKLY: "2026-10"}


def main() -> int:
    """Measure, print the tables, and return the exit status: 1 where a run failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--regions", type=int, default=12, help="of the run that is compared with the prediction")
    parser.add_argument("--forms", type=int, default=23_200, help="of each of its regions, a seventh of them archived")
    parser.add_argument("--only", choices=("loads", "runs", "check"), help="measure a part")
    arguments = parser.parse_args()
    if not console.is_terminal:
        console.width = max(console.width, _MIN_WIDTH)
    try:
        with (
            embedded_stack.stack_lock(WORK_DIR),
            embedded_stack.databases(WORK_DIR, mongo_cache_gb=_CACHE_GB) as servers,
        ):
            if arguments.only in (None, "loads"):
                console.print(_loads_table(servers))
            if arguments.only in (None, "runs"):
                console.print(_runs_table(servers))
            if arguments.only in (None, "check"):
                console.print(_check_table(servers, arguments.regions, arguments.forms))
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    return 0


def _loads_table(servers: DatabaseServers) -> Table:
    """What each document of a job costs, from two sizes, and what each observation costs, from two usages.

    The observations are all that MEG has; `observation_us` in dev/sizing_costs.py is for those of the months that a job
    reads.
    """
    title = "For each document: processor time in microseconds, sizes in bytes; for each observation in two years: time"
    table = Table("job", title=title, title_justify="left")
    names = (
        "live_bytes",
        "raw_bytes",
        "id_index_bytes",
        "other_index_bytes",
        "staged_bytes",
        "meg_bytes",
        "mongo_bytes",
    )
    for name in ("documents", "document_us", "observation_us", *names):
        table.add_column(name, justify="right")
    small, medium, busy = (
        seed(servers, forms, sessions)
        for forms, sessions in ((_SMALL, _FEW_SESSIONS), (_MEDIUM, _FEW_SESSIONS), (_MEDIUM, _MANY_SESSIONS))
    )
    small_count, count, busy_count = (count_observations(servers, database) for database in (small, medium, busy))
    for job in JOBS:
        loads = [
            [measure_load(servers, database, job.name) for _ in range(_ROUNDS)] for database in (small, medium, busy)
        ]
        for_observation = (_mean(loads[2], "cpu") - _mean(loads[1], "cpu")) / (busy_count - count)
        documents = _mean(loads[1], "documents") - _mean(loads[0], "documents")
        cpu = _mean(loads[1], "cpu") - _mean(loads[0], "cpu") - for_observation * (count - small_count)
        if documents:
            sizes = [(_mean(loads[1], name) - _mean(loads[0], name)) / documents for name in names]
        else:  # as many documents whatever the forms
            sizes = [_mean(loads[1], name) / _mean(loads[1], "documents") for name in names]
            documents = _mean(loads[1], "documents")
        table.add_row(
            job.name,
            f"{_mean(loads[1], 'documents'):,.0f}",
            f"{cpu / documents * 1e6:.0f}",
            f"{for_observation * 1e6:.2f}",
            *(f"{size:,.0f}" for size in sizes),
        )
    return table


def _mean(loads: Sequence[LoadCost], name: str) -> float:
    """The mean of an attribute of the loads, or of their sizes."""
    return statistics.mean(float(getattr(load if hasattr(load, name) else load.size, name)) for load in loads)


def _runs_table(servers: DatabaseServers) -> Table:
    """What runs of one region cost: of few and many tasks, on one slot, and in a DAG of many regions."""
    tiny, small, medium = (seed(servers, forms, _FEW_SESSIONS) for forms in (_ONE_CHUNK, _SMALL, _MEDIUM))
    table = Table("run", title="Runs of bi_monthly for one region", title_justify="left")
    for column in ("tasks", "seconds", "processor seconds", "connections to MongoDB"):
        table.add_column(column, justify="right")
    with run_airflow(servers, {}, MEG_REGIONS="eu") as airflow:
        airflow.set_region_database(servers, tiny)
        _load(servers, airflow)  # warm
        for name, database in (("one chunk", tiny), (f"{_SMALL:,} forms", small), (f"{_MEDIUM:,} forms", medium)):
            airflow.set_region_database(servers, database)
            for _ in range(_ROUNDS):
                _add_run(table, name, _load(servers, airflow))
    with run_airflow(servers, {}, MEG_REGIONS="eu", AIRFLOW__CORE__PARALLELISM="1") as airflow:
        for name, database in (("one chunk, one slot", tiny), (f"{_SMALL:,} forms, one slot", small)):
            airflow.set_region_database(servers, database)
            _add_run(table, name, _load(servers, airflow))
    regions = [f"r{number}" for number in range(1, _MANY_REGIONS + 1)]
    with run_airflow(servers, dict.fromkeys(regions, small)) as airflow:
        for _ in range(_ROUNDS):
            run = _load(servers, airflow, regions=regions[:1])
            _add_run(table, f"{_SMALL:,} forms, one of {_MANY_REGIONS} regions", run)
    return table


def _add_run(table: Table, name: str, run: RunCost) -> None:
    table.add_row(name, f"{run.tasks}", f"{run.seconds:.1f}", f"{run.cpu:.1f}", f"{run.mongo_connections}")


def _load(servers: DatabaseServers, airflow: AirflowInstance, **conf: object) -> RunCost:
    drop_databases(servers)
    return measure_run(servers, airflow, Cadence.MONTHLY.dag_id, period=_PERIODS[Cadence.MONTHLY], **conf)


def _check_table(servers: DatabaseServers, regions: int, forms: int) -> Table:
    """The first run of each cadence at a larger size, each figure beside its prediction."""
    database = seed(servers, forms, _CHECK_SESSIONS)
    names = [f"r{number}" for number in range(1, regions + 1)]
    with run_airflow(servers, dict.fromkeys(names, database)) as airflow:
        create_live_collections(servers)
        runs, network = {}, {}
        for cadence, period in _PERIODS.items():
            before = mongo_bytes(servers)
            runs[cadence] = measure_run(servers, airflow, cadence.dag_id, period=period)
            network[cadence] = mongo_bytes(servers) - before
        sizes = measure_storage(servers)
    active = sizes["monthly_submissions"].documents // regions
    here = Installation(
        regions,
        active,
        months=MONTHS,
        observations=round(count_observations(servers, database) / MONTHS / active),
        cores=os.cpu_count() or 1,
        slots=2 * (os.cpu_count() or 1),
        settings=Settings.from_env({}),
    )
    comparison = _Comparison(
        f"{regions} regions of {active:,} forms, {here.observations} observations per form and month"
    )
    for cadence, run in runs.items():
        predicted = Run(cadence, here)
        comparison.add(f"{cadence.dag_id}: tasks", predicted.tasks, run.tasks)
        comparison.add(f"{cadence.dag_id}: processor seconds", predicted.core_seconds, run.cpu)
        comparison.add(f"{cadence.dag_id}: seconds", predicted.seconds, run.seconds)
        mb = predicted.mongo_bytes / _MB, network[cadence] / _MB
        comparison.add(f"{cadence.dag_id}: MongoDB network, MB", *mb)
    for cost in JOB_COSTS:
        size, documents = sizes[cost.job.name], regions * here.documents(cost)
        comparison.add(f"{cost.job.name}: documents", documents, size.documents)
        for name in ("live_bytes", "id_index_bytes", "other_index_bytes", "staged_bytes"):
            mb = documents * getattr(cost, name) / _MB, getattr(size, name) / _MB
            comparison.add(f"{cost.job.name}: {name.replace('_', ' ')}, MB", *mb)
    connections = ", ".join(f"{run.meg_connections} to MEG's server" for run in runs.values())
    console.print(f"The most connections at once, by DAG: {connections}", highlight=False)
    return comparison.table


class _Comparison:
    def __init__(self, title: str) -> None:
        self.table = Table("figure", title=title, title_justify="left")
        for name in ("predicted", "measured", "error"):
            self.table.add_column(name, justify="right")

    def add(self, name: str, predicted: float, measured: float) -> None:
        error = f"{predicted / measured - 1:+.0%}" if measured else ""
        self.table.add_row(name, f"{predicted:,.1f}", f"{measured:,.1f}", error)


if __name__ == "__main__":
    sys.exit(main())
