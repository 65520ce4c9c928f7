"""Where the time goes: a sampling profiler's view of stage and of publish."""

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

_FRAMES = 8
_RATE = 200
"""Samples a second."""


def run(servers: embedded_stack.DatabaseServers, rows: int) -> Section:
    """Stage and publish these rows while py-spy looks on; needs to be allowed to (root, or ptrace_scope 0).

    Args:
        servers: The databases.
        rows: How many rows.
    """
    prepare(servers)
    ways = Candidates(servers, rows)
    ways.empty()
    section = Section(f"Where the time of {rows:,} rows goes (py-spy)", ("step", "share of the samples", "in"))
    steps: list[tuple[str, Callable[..., None], tuple[str, ...]]] = [
        ("stage", ways.stage, ("spied", ways.sql())),
        ("publish", ways.publish, ("spied",)),
    ]
    for name, step, arguments in steps:
        process = get_context("fork").Process(target=_late, args=(step, arguments))
        process.start()
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "samples"
            options = ["--format", "raw", "--rate", str(_RATE), "--idle", "--duration", "60", "--output", str(output)]
            spy = Path(sys.executable).parent / "py-spy"
            done = subprocess.run(
                [str(spy), "record", "--pid", str(process.pid), *options], capture_output=True, text=True, check=False
            )
            process.join()
            if not output.exists():
                section.notes.append(f"py-spy could not look: {done.stderr.strip().splitlines()[-1]}")
                return section
            section.rows += [[name, f"{share:.0%}", where] for where, share in _main_thread(output.read_text())]
    return section


def _late(step: Callable[..., None], arguments: tuple[str, ...]) -> None:
    """Begin once the profiler has come."""
    time.sleep(0.7)
    step(*arguments)
    sys.stdout.flush()
    os._exit(0)


def _main_thread(samples: str) -> list[tuple[str, float]]:
    """The functions of this project's, and of others that it calls, in which the main thread was seen most."""
    seen: Counter[str] = Counter()
    for line in samples.splitlines():
        stack_of_calls, _, count = line.rpartition(" ")
        frames = stack_of_calls.split(";")
        ours = [frame for frame in frames if "bi_ops" in frame]
        if ours and "_bootstrap" not in frames[0]:
            seen[f"{ours[-1].split(':')[0]} > {frames[-1].split(' (')[0]}"] += int(count)
    total = sum(seen.values()) or 1
    return [(where, count / total) for where, count in seen.most_common(_FRAMES)]
