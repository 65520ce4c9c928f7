"""Profiles stage and publish with the sampling profiler py-spy."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

from bench.results import Section
from bench.throughput import Candidates, prepare
from dev import embedded_stack

_MAX_FUNCTIONS = 8
_SAMPLE_RATE = 200
"""Samples a second."""


def run(servers: embedded_stack.DatabaseServers, rows: int) -> Section:
    """Stage and publish these rows under py-spy, which needs root or ptrace_scope 0.

    Args:
        servers: The databases.
        rows: The number of rows.
    """
    prepare(servers)
    candidates = Candidates(servers, rows)
    candidates.reset()
    section = Section(f"Time by function for {rows:,} rows (py-spy)", ("step", "share of samples", "function"))
    steps: list[tuple[str, Callable[..., None], tuple[str, ...]]] = [
        ("stage", candidates.stage, ("profiled", candidates.sql())),
        ("publish", candidates.publish, ("profiled",)),
    ]
    for name, step, arguments in steps:
        process = get_context("fork").Process(target=_run_delayed, args=(step, arguments))
        process.start()
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "samples"
            options = [
                *("--format", "raw", "--rate", str(_SAMPLE_RATE), "--idle", "--duration", "60"),
                *("--output", str(output)),
            ]
            py_spy = Path(sys.executable).parent / "py-spy"
            result = subprocess.run(
                [str(py_spy), "record", "--pid", str(process.pid), *options],
                capture_output=True,
                text=True,
                check=False,
            )
            process.join()
            if not output.exists():
                section.notes.append(f"py-spy failed: {result.stderr.strip().splitlines()[-1]}")
                return section
            section.rows += [[name, f"{share:.0%}", where] for where, share in _main_thread_shares(output.read_text())]
    return section


def _run_delayed(step: Callable[..., None], arguments: tuple[str, ...]) -> None:
    """Call the step once the profiler has attached."""
    time.sleep(0.7)
    step(*arguments)
    sys.stdout.flush()
    os._exit(0)


def _main_thread_shares(samples: str) -> list[tuple[str, float]]:
    """The functions with the most samples of the main thread, each as `package function > innermost function`."""
    samples_by_function: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        package_frames = [frame for frame in frames if "bi_ops" in frame]
        if package_frames and "_bootstrap" not in frames[0]:
            samples_by_function[f"{package_frames[-1].split(':')[0]} > {frames[-1].split(' (')[0]}"] += int(count)
    total = sum(samples_by_function.values()) or 1
    return [(where, count / total) for where, count in samples_by_function.most_common(_MAX_FUNCTIONS)]
