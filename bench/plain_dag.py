"""The cost of a month in Airflow, compared with a plain DAG: a mapped task for ten forms, with hooks or with dlt."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bench.airflow_instance import JOB, AirflowInstance, run_airflow
from bench.helpers import REGION, drop_databases
from bench.measure import rounds
from bench.results import Ratio, Section, ratios
from bench.scaling import seed
from bench.stack_usage import ACCESS_LOG, Usage, measure_usage
from dev import embedded_stack

_PERIOD = "2026-10"
_PRODUCT, _CHUNK_TASKS, _PLAIN, _DLT = "bi_monthly", "bench_chunk_tasks", "bench_plain", "bench_dlt"
_CANDIDATES = {
    _PRODUCT: "MEG BI",
    _CHUNK_TASKS: "MEG BI, a task a chunk",
    _PLAIN: "plain DAG",
    _DLT: "plain DAG with dlt",
}
_COLLECTIONS = {_PRODUCT: JOB, _CHUNK_TASKS: JOB, _PLAIN: _PLAIN, _DLT: _DLT}
_MAX_MAPPED = 1024
"""Airflow's `max_map_length`: the plain DAG of more chunks fails, unless that is raised."""
_WALL_GOALS: Mapping[int, float] = MappingProxyType({2_000: 0.35, 20_000: 0.1})
_CPU_GOALS: Mapping[int, float] = MappingProxyType({2_000: 0.5})
_CHUNK_TASKS_GOALS: Mapping[int, float] = MappingProxyType({2_000: 1.05})


@dataclass(frozen=True)
class _Run:
    """The cost of one DAG run.

    Attributes:
        seconds: From its trigger to its end.
        tasks: Its executed tasks.
        documents: The documents that it left.
        usage: What it used.
    """

    seconds: float
    tasks: int
    documents: int
    usage: Usage


@dataclass(frozen=True)
class _Stack:
    """The databases and an Airflow that uses them."""

    servers: embedded_stack.DatabaseServers
    airflow: AirflowInstance

    def run_dag(self, name: str) -> _Run:
        """Load the month into an empty database."""
        drop_databases(self.servers)
        conf = {"period": _PERIOD, **({} if name in (_PLAIN, _DLT) else {"jobs": [JOB]})}
        with measure_usage(self.servers, self.airflow) as usage:
            seconds = self.airflow.run_dag(name, conf)
        with self.servers.mongo_admin.client() as client:
            documents = client[embedded_stack.LIVE_DATABASE][_COLLECTIONS[name]].count_documents({})
        return _Run(seconds, self.airflow.count_tasks(name, state="success"), documents, usage)


_Runs = dict[str, list[_Run]]
"""By DAG, one for each round; dlt in the first rounds only."""


def run(
    servers: embedded_stack.DatabaseServers, deadline: float, sizes: Sequence[int], max_rounds: int, dlt_rounds: int
) -> Section:
    """Load a month of each size with the package, the package with a task a chunk, the plain DAG and dlt, in turn.

    Args:
        servers: The databases.
        deadline: When to end, by `time.monotonic`.
        sizes: The numbers of forms; the last one gets the time that is left.
        max_rounds: The maximum number of rounds.
        dlt_rounds: The number of rounds with dlt, which takes longer than all the others together.
    """
    runs_by_forms: dict[int, _Runs] = {}
    for forms in sizes:
        with run_airflow(servers, {REGION: seed(servers, forms)}, *_CANDIDATES, **ACCESS_LOG) as airflow:
            stack = _Stack(servers, airflow)
            stack.run_dag(_PRODUCT)  # warm
            runs_by_forms[forms] = _run_rounds(stack, forms, deadline, max_rounds, dlt_rounds)
    section = Section(
        "A month in Airflow, compared with a plain DAG",
        ("forms", "DAG", "tasks", "seconds", "CPU seconds", "additional MB", "API calls a task"),
    )
    for forms in sorted(runs_by_forms):
        section.rows += [_row(forms, name, runs) for name, runs in runs_by_forms[forms].items()]
    section.notes = [_cpu_note(forms, runs_by_forms[forms]) for forms in sorted(runs_by_forms)]
    for forms in sorted(runs_by_forms):
        runs = runs_by_forms[forms]
        if _PLAIN in runs:
            section.ratios += _ratios(forms, runs)
        elif extrapolated := _extrapolate(runs_by_forms, _chunks(runs[_PRODUCT][0].documents) + 1):
            section.ratios += _extrapolated_ratios(forms, runs[_PRODUCT], *extrapolated)
            section.notes.append(
                f"- {forms:,} forms: the plain DAG would map more tasks than Airflow allows ({_MAX_MAPPED:,}). Its "
                f"{extrapolated[0]:,.0f} seconds and {extrapolated[1]:,.0f} CPU seconds are not measured but "
                "extrapolated from the smaller sizes."
            )
    return section


def _run_rounds(stack: _Stack, forms: int, deadline: float, max_rounds: int, dlt_rounds: int) -> _Runs:
    runs: _Runs = {}
    for number in rounds(max_rounds, deadline):
        names = [_PRODUCT]
        if _chunks(forms) <= _MAX_MAPPED:
            names += [_CHUNK_TASKS, _PLAIN, *([_DLT] if number < dlt_rounds else [])]
        for name in names:
            runs.setdefault(name, []).append(stack.run_dag(name))
        counts = {name: runs[name][-1].documents for name in names}
        if len({*counts.values()}) != 1 or 0 in counts.values():
            raise RuntimeError(f"The DAGs loaded different numbers of documents: {counts}")
    return runs


def _chunks(forms: int) -> int:
    return -(-forms // 10)


def _row(forms: int, name: str, runs: Sequence[_Run]) -> list[str]:
    calls = statistics.median(run.usage.calls / run.tasks for run in runs)
    return [
        f"{forms:,}",
        _CANDIDATES[name],
        f"{runs[0].tasks:,}",
        f"{statistics.median(run.seconds for run in runs):.1f}",
        f"{statistics.median(run.usage.cpu_seconds for run in runs):.1f}",
        f"{max(run.usage.memory_mb for run in runs):.0f}",
        f"{calls:.1f}",
    ]


def _cpu_note(forms: int, runs: _Runs) -> str:
    """Where the processor time of each DAG goes."""
    texts = []
    for name, runs_ in runs.items():
        parts = {part: statistics.median(run.usage.cpu[part] for run in runs_) for part in runs_[0].usage.cpu}
        largest = sorted(parts.items(), key=lambda item: -item[1])
        texts.append(f"{_CANDIDATES[name]}: " + ", ".join(f"{part} {seconds:.1f}" for part, seconds in largest))
    return f"- {forms:,} forms, CPU seconds by part. " + ". ".join(texts) + "."


def _seconds(runs: Sequence[_Run]) -> list[float]:
    return [run.seconds for run in runs]


def _cpu(runs: Sequence[_Run]) -> list[float]:
    return [run.usage.cpu_seconds for run in runs]


def _ratios(forms: int, runs: _Runs) -> list[Ratio]:
    product, chunk_tasks, plain = (runs[name] for name in (_PRODUCT, _CHUNK_TASKS, _PLAIN))
    result = [
        Ratio(
            f"{forms:,} forms: wall time, MEG BI / plain DAG",
            ratios(_seconds(product), _seconds(plain)),
            max_goal=_WALL_GOALS.get(forms),
            explanation="the gate, the plan and the publish run one after the other, and each waits for the scheduler",
        ),
        Ratio(
            f"{forms:,} forms: CPU, MEG BI / plain DAG",
            ratios(_cpu(product), _cpu(plain)),
            max_goal=_CPU_GOALS.get(forms),
        ),
        Ratio(
            f"{forms:,} forms: wall time, MEG BI with a task a chunk / plain DAG",
            ratios(_seconds(chunk_tasks), _seconds(plain)),
            max_goal=_CHUNK_TASKS_GOALS.get(forms),
            explanation="a stage task calls Airflow's API twice more: for its label and its count",
        ),
        Ratio(f"{forms:,} forms: CPU, MEG BI with a task a chunk / plain DAG", ratios(_cpu(chunk_tasks), _cpu(plain))),
    ]
    if dlt := runs.get(_DLT):
        compared = product[: len(dlt)]
        result += [
            Ratio(
                f"{forms:,} forms: wall time, MEG BI / plain DAG with dlt", ratios(_seconds(compared), _seconds(dlt))
            ),
            Ratio(f"{forms:,} forms: CPU, MEG BI / plain DAG with dlt", ratios(_cpu(compared), _cpu(dlt))),
        ]
    return result


def _extrapolate(runs_by_forms: Mapping[int, _Runs], tasks: int) -> tuple[float, float] | None:
    """The plain DAG's seconds and CPU seconds with this many tasks, on the line through all of its measured runs.

    None if it was measured with one number of tasks only.
    """
    runs = [run for by_dag in runs_by_forms.values() for run in by_dag.get(_PLAIN, [])]
    counts = [run.tasks for run in runs]
    if len({*counts}) <= 1:
        return None
    lines = [statistics.linear_regression(counts, values) for values in (_seconds(runs), _cpu(runs))]
    wall, cpu = (line.intercept + line.slope * tasks for line in lines)
    return wall, cpu


def _extrapolated_ratios(forms: int, product: Sequence[_Run], seconds: float, cpu: float) -> list[Ratio]:
    count = len(product)
    return [
        Ratio(
            f"{forms:,} forms: wall time, MEG BI / plain DAG (extrapolated)",
            ratios(_seconds(product), [seconds] * count),
            max_goal=_WALL_GOALS.get(forms),
        ),
        Ratio(f"{forms:,} forms: CPU, MEG BI / plain DAG (extrapolated)", ratios(_cpu(product), [cpu] * count)),
    ]
