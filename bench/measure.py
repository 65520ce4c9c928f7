"""How often something is measured, and one measurement, in a process of its own: time, processor time and memory."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

_PROCESSES = multiprocessing.get_context("fork")
_MB = 1024  # ru_maxrss is in KiB


@dataclass(frozen=True)
class Measurement:
    """What one run took.

    Attributes:
        seconds: By the clock.
        cpu: Of this process's processor time, in seconds; not the servers'.
        peak: By how many MB the process grew beyond what it was with everything imported.
    """

    seconds: float
    cpu: float
    peak: float


def rounds(most: int, until: float) -> Iterator[int]:
    """Count rounds from 0: the first in any case, and more for as long as another would end in time.

    Args:
        most: How many there may be.
        until: When they are to end, by `time.monotonic`.
    """
    began = time.monotonic()
    for number in range(most):
        now = time.monotonic()
        if number and now + (now - began) / number > until:
            return
        yield number


def measure(run: Callable[..., Any], *arguments: Any, setup: Callable[..., Any] | None = None) -> Measurement:
    """Run something in a fork of this process and measure it there.

    Args:
        run: What to measure; what it needs is imported here already, and not connected.
        *arguments: What it is called with.
        setup: What to do first, unmeasured, in the same process; what it returns is the last argument.

    Raises:
        RuntimeError: It failed; its own traceback is on the console.
    """
    here, there = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_measured, args=(there, run, arguments, setup))
    process.start()
    there.close()
    try:
        cost: Measurement = here.recv()
    except EOFError:
        raise RuntimeError(f"{run.__name__} failed") from None
    finally:
        process.join()
    return cost


def _measured(
    there: Connection, run: Callable[..., Any], arguments: tuple[Any, ...], before: Callable[..., Any] | None
) -> None:
    given = (*arguments, before(*arguments)) if before else arguments
    gc.collect()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, worked = time.perf_counter(), time.process_time()
    run(*given)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    there.send(Measurement(seconds, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) / _MB))
