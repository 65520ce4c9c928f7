"""`make bench`: runs the benchmarks and compares each ratio with its goal; `make bench QUICK=1` runs a smaller suite.

The results are written to dist/bench/; a full run also updates docs/performance-notes.md and the chart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import psutil
import vl_convert
from rich.table import Table

from bench import (
    airflow_overhead,
    celery_baseline,
    click_to_published,
    cold_start,
    kept_ratios,
    plain_dag,
    postgres_cost,
    profiling,
    reports_latency,
    scaling,
    throughput,
)
from bench.airflow_instance import WORK_DIR
from bench.results import RATIO_COLUMNS, Section, chart_spec, markdown_table
from dev import embedded_stack
from dev.console import console
from dev.generate_docs import replace_section
from dev.processes import StackError, die_with_parent

ROOT = Path(__file__).parents[1]
_NOTES = ROOT / "docs" / "performance-notes.md"
_CACHE_GB = 2.0
"""MongoDB's cache: a slice of 100,000 documents with three indexes does not fit into half a gigabyte."""

_MIN_WIDTH = 120
"""Columns, where the output goes to a file or a log."""

Benchmark = Callable[[embedded_stack.DatabaseServers, float], Section]
"""Takes the databases and its deadline, by `time.monotonic`."""
Suite = Mapping[str, tuple[int, Benchmark]]
"""By name: the seconds to reserve for a benchmark on a slow machine, and the benchmark."""

FULL_SUITE: Suite = {
    "path": (180, lambda servers, deadline: throughput.run(servers, deadline, 200_000, max_rounds=5, dlt_rounds=2)),
    "million": (
        290,
        lambda servers, deadline: throughput.run(servers, deadline, 1_000_000, max_rounds=1, dlt_rounds=1),
    ),
    "meg": (
        95,
        lambda servers, deadline: postgres_cost.run(
            servers, deadline, [200, 2_000, 20_000], max_rounds=5, observations=5_000_000
        ),
    ),
    "imports": (30, lambda _, deadline: cold_start.run(deadline, max_rounds=10)),
    "airflow": (145, lambda servers, deadline: airflow_overhead.run(servers, deadline, max_rounds=3)),
    "click": (120, lambda servers, deadline: click_to_published.run(servers, deadline, max_rounds=5)),
    "plain": (
        420,
        lambda servers, deadline: plain_dag.run(servers, deadline, [200, 20_000, 2_000], max_rounds=3, dlt_rounds=1),
    ),
    "growth": (
        440,
        lambda servers, _: scaling.run(servers, [1_000, 10_000, 100_000], months=24, regions=8, rounds=5),
    ),
    "old": (80, lambda servers, deadline: celery_baseline.run(servers, deadline, 2_000, max_rounds=3)),
    "reports": (240, lambda servers, deadline: reports_latency.run(servers, deadline, 2_000, max_rounds=50)),
    "profiles": (40, lambda servers, _: profiling.run(servers, 500_000)),
}
QUICK_SUITE: Suite = {
    "path": (60, lambda servers, deadline: throughput.run(servers, deadline, 50_000, max_rounds=5, dlt_rounds=1)),
    "meg": (
        60,
        lambda servers, deadline: postgres_cost.run(servers, deadline, [2_000], max_rounds=5, observations=5_000_000),
    ),
    "imports": (20, lambda _, deadline: cold_start.run(deadline, max_rounds=5)),
    "click": (90, lambda servers, deadline: click_to_published.run(servers, deadline, max_rounds=5)),
    "reports": (60, lambda servers, deadline: reports_latency.run(servers, deadline, 300, max_rounds=20)),
}
_FULL_SECONDS, _QUICK_SECONDS = 31 * 60, 4.8 * 60
"""The time limits of a suite: below the promised ones, as the last round of a benchmark may take longer than others."""


def main() -> int:
    """Run the benchmarks, print and write the results, and return the exit status: 0 whatever the ratios are."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run a smaller suite in minutes")
    parser.add_argument("--keep", action="store_true", help="with --quick: compare later runs with this one")
    parser.add_argument("--only", help=f"a comma-separated selection of {', '.join(FULL_SUITE)}")
    arguments = parser.parse_args()
    suite = QUICK_SUITE if arguments.quick else FULL_SUITE
    names = arguments.only.split(",") if arguments.only else [*suite]
    if unknown := set(names) - set(suite):
        parser.error(f"there is no benchmark {sorted(unknown)[0]!r}; there are {', '.join(suite)}")
    if "MAKELEVEL" in os.environ:
        die_with_parent()
    if not console.is_terminal:
        console.width = max(console.width, _MIN_WIDTH)
    start = time.monotonic()
    reserved = sum(suite[name][0] for name in names)
    deadline = start + min(reserved, _QUICK_SECONDS if arguments.quick else _FULL_SECONDS)
    sections = []
    try:
        with (
            embedded_stack.stack_lock(WORK_DIR),
            embedded_stack.databases(WORK_DIR, mongo_cache_gb=_CACHE_GB) as servers,
        ):
            for number, name in enumerate(names):
                console.rule(name)
                section_start = time.monotonic()
                _, benchmark = suite[name]
                section = benchmark(servers, deadline - sum(suite[later][0] for later in names[number + 1 :]))
                section.seconds = round(time.monotonic() - section_start, 1)
                sections.append(section)
                _print_section(section)
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    console.print(f"{time.monotonic() - start:.0f} s in total")
    _write_results(sections, whole=names == [*FULL_SUITE] and not arguments.quick)
    if arguments.quick:
        _compare_with_kept(sections, keep=arguments.keep)
    return 0


def _compare_with_kept(sections: list[Section], *, keep: bool) -> None:
    worse = kept_ratios.worse_than_kept(sections, kept_ratios.read_kept())
    for line in worse:
        console.print(f"Worse than before: {line}", style="red", markup=False, highlight=False)
    if not worse:
        console.print("No ratio is worse than the kept one by more than its spread.")
    if keep:
        kept_ratios.keep(sections, _machine())


def _print_section(section: Section) -> None:
    for title, columns, rows in (
        (section.title, section.columns, section.rows),
        ("", RATIO_COLUMNS[:-1], [ratio.row()[:-1] for ratio in section.ratios]),
    ):
        if rows:
            table = Table(*columns, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    reasons = [f"{ratio.name}: {ratio.reason}" for ratio in section.ratios if ratio.misses_goal]
    for note in (*reasons, *section.notes):
        console.print(note, markup=False, highlight=False)
    console.print(f"({section.seconds:.0f} s)")


def _write_results(sections: list[Section], *, whole: bool) -> None:
    folder = ROOT / "dist" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    results = {"machine": machine, "sections": [asdict(section) for section in sections]}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    png = vl_convert.vegalite_to_png(chart_spec(sections), scale=2)
    (folder / "performance.png").write_bytes(png)
    for section in sections:
        if section.title.startswith(click_to_published.TITLE):
            image = vl_convert.vegalite_to_png(click_to_published.chart_spec(section), scale=2)
            (folder / "click.png").write_bytes(image)
            if whole:
                (ROOT / "docs" / "click.png").write_bytes(image)
    text = _results_markdown(sections, machine)
    (folder / "performance.md").write_text(text)
    if whole:
        (ROOT / "docs" / "performance.png").write_bytes(png)
        _NOTES.write_text(replace_section(_NOTES.read_text(), "figures", text))
    console.print(
        f"Written to {folder.relative_to(ROOT)}/"
        + (" and docs/performance-notes.md; update docs/performance.md" if whole else "")
    )


def _results_markdown(sections: list[Section], machine: str) -> str:
    """The results as Markdown."""
    parts = [f"{machine}\n"]
    for section in sections:
        parts.append(f"### {section.title}\n")
        if section.rows:
            parts.append(markdown_table(section.columns, section.rows))
        if section.ratios:
            parts.append(markdown_table(RATIO_COLUMNS, [ratio.row() for ratio in section.ratios]))
        if section.notes:
            parts.append("\n".join(section.notes) + "\n")
    return "\n".join(parts)


def _machine() -> str:
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    memory = psutil.virtual_memory().total / 2**30
    day = datetime.now(timezone.utc).date()
    python = f"Python {platform.python_version()}"
    return f"{day}, {os.cpu_count()} cores ({cpu}), {memory:.0f} GB, {python}, everything on one machine."


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
