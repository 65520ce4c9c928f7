"""`make bench`: every ratio beside its goal, in one run on this machine; `make bench QUICK=1` most of them, smaller.

What was measured goes into dist/bench/; a whole run also writes docs/performance.md's figures and its picture.
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

from bench import airflow_overhead, celery_baseline, postgres_cost, profiling, reports_latency, scaling, throughput
from bench.airflow_instance import WORK_DIR
from bench.results import FIGURE_COLUMNS, Section, chart_spec, markdown_table
from dev import embedded_stack
from dev.console import console
from dev.generate_docs import replace_section
from dev.processes import StackError, die_with_parent

ROOT = Path(__file__).parents[1]
_GUIDE = ROOT / "docs" / "performance.md"
_CACHE_GB = 2.0
"""MongoDB's cache: a slice of 100,000 documents with three indexes did not fit into half a gigabyte."""

_WIDTH = 120
"""Columns, where the output goes to a file or a log."""

Measure = Callable[[embedded_stack.DatabaseServers, float], Section]
Benchmarks = Mapping[str, tuple[int, Measure]]
"""By name, how many seconds to leave for it on a slow machine, and what it does until a moment of `time.monotonic`."""

FULL_SUITE: Benchmarks = {
    "path": (180, lambda servers, until: throughput.run(servers, until, 200_000, max_rounds=5, dlt_rounds=2)),
    "million": (290, lambda servers, until: throughput.run(servers, until, 1_000_000, max_rounds=1, dlt_rounds=1)),
    "meg": (
        95,
        lambda servers, until: postgres_cost.run(
            servers, until, [200, 2_000, 20_000], max_rounds=5, observations=5_000_000
        ),
    ),
    "airflow": (145, lambda servers, until: airflow_overhead.run(servers, until, max_rounds=3)),
    "growth": (
        440,
        lambda servers, _: scaling.run(servers, [1_000, 10_000, 100_000], months=24, regions=8, rounds=5),
    ),
    "old": (80, lambda servers, until: celery_baseline.run(servers, until, 2_000, max_rounds=3)),
    "reports": (220, lambda servers, until: reports_latency.run(servers, until, 2_000, max_rounds=200)),
    "profiles": (40, lambda servers, _: profiling.run(servers, 500_000)),
}
QUICK_SUITE: Benchmarks = {
    "path": (50, lambda servers, until: throughput.run(servers, until, 50_000, max_rounds=2, dlt_rounds=1)),
    "meg": (
        60,
        lambda servers, until: postgres_cost.run(servers, until, [2_000], max_rounds=3, observations=5_000_000),
    ),
    "growth": (140, lambda servers, _: scaling.run(servers, [200, 2_000], months=2, regions=2, rounds=1)),
    "reports": (30, lambda servers, until: reports_latency.run(servers, until, 300, max_rounds=20)),
}
_WHOLE_SECONDS, _QUICK_SECONDS = 24 * 60, 4.8 * 60
"""What all of it may take: less than was promised, as the last round of a section may take longer than those before."""


def main() -> int:
    """Measure, print, write, and return the exit status: 0 whatever the ratios are."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller and fewer, to see whether something got slow")
    parser.add_argument("--only", help=f"some of {', '.join(FULL_SUITE)}, with commas between")
    asked = parser.parse_args()
    wanted = QUICK_SUITE if asked.quick else FULL_SUITE
    names = asked.only.split(",") if asked.only else [*wanted]
    if strangers := set(names) - set(wanted):
        parser.error(f"there is no benchmark {sorted(strangers)[0]!r}; there are {', '.join(wanted)}")
    if "MAKELEVEL" in os.environ:
        die_with_parent()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    began = time.monotonic()
    end = began + (_QUICK_SECONDS if asked.quick else _WHOLE_SECONDS)
    sections = []
    try:
        with (
            embedded_stack.stack_lock(WORK_DIR),
            embedded_stack.databases(WORK_DIR, mongo_cache_gb=_CACHE_GB) as servers,
        ):
            for number, name in enumerate(names):
                console.rule(name)
                started = time.monotonic()
                _, measure = wanted[name]
                section = measure(servers, end - sum(wanted[later][0] for later in names[number + 1 :]))
                section.seconds = round(time.monotonic() - started, 1)
                sections.append(section)
                _show(section)
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    console.print(f"{time.monotonic() - began:.0f} s in all")
    _write(sections, whole=names == [*FULL_SUITE] and not asked.quick)
    return 0


def _show(section: Section) -> None:
    for title, columns, rows in (
        (section.title, section.columns, section.rows),
        ("", FIGURE_COLUMNS[:-1], [figure.row()[:-1] for figure in section.figures]),
    ):
        if rows:
            table = Table(*columns, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    why = [f"{figure.name}: {figure.reason}" for figure in section.figures if figure.misses_goal]
    for note in (*why, *section.notes):
        console.print(note, markup=False, highlight=False)
    console.print(f"({section.seconds:.0f} s)")


def _write(sections: list[Section], *, whole: bool) -> None:
    folder = ROOT / "dist" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    results = {"machine": machine, "sections": [asdict(section) for section in sections]}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    png = vl_convert.vegalite_to_png(chart_spec(sections), scale=2)
    (folder / "performance.png").write_bytes(png)
    text = _performance_text(sections, machine)
    (folder / "performance.md").write_text(text)
    if whole:
        (ROOT / "docs" / "performance.png").write_bytes(png)
        _GUIDE.write_text(replace_section(_GUIDE.read_text(), "figures", text))
    console.print(f"Written to {folder.relative_to(ROOT)}/" + (" and docs/performance.md" if whole else ""))


def _performance_text(sections: list[Section], machine: str) -> str:
    """The figures as Markdown."""
    parts = [f"{machine}\n"]
    for section in sections:
        parts.append(f"### {section.title}\n")
        if section.rows:
            parts.append(markdown_table(section.columns, section.rows))
        if section.figures:
            parts.append(markdown_table(FIGURE_COLUMNS, [figure.row() for figure in section.figures]))
        if section.notes:
            parts.append("\n".join(section.notes) + "\n")
    return "\n".join(parts)


def _machine() -> str:
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    memory = psutil.virtual_memory().total / 2**30
    day = datetime.now(timezone.utc).date()
    python = f"Python {platform.python_version()}"
    return f"{day}, {os.cpu_count()} cores ({cpu}), {memory:.0f} GB, {python}, all of it on one machine."


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
