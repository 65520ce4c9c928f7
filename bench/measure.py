"""Measures time, processor time and memory of a function in its own process, and counts rounds."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

_PROCESSES = multiprocessing.get_context("fork")
_KIB_PER_MB = 1024  # ru_maxrss is in KiB


@dataclass(frozen=True)
class Measurement:
    """The cost of one call.

    Attributes:
        seconds: Wall time.
        cpu: Processor time of the client process, without the servers', in seconds.
        peak_mb: Growth of the process's memory beyond its size after the imports, in MB.
    """

    seconds: float
    cpu: float
    peak_mb: float


def rounds(max_rounds: int, deadline: float) -> Iterator[int]:
    """Count rounds from 0: at least one, and further ones as long as the next is expected to end in time.

    Args:
        max_rounds: The maximum number of rounds.
        deadline: When to end, by `time.monotonic`.
    """
    start = time.monotonic()
    for number in range(max_rounds):
        now = time.monotonic()
        if number and now + (now - start) / number > deadline:
            return
        yield number


def processor_seconds(pid: int | None) -> float:
    """Processor time of a server's processes, including those that have ended, in seconds; 0 without a server.

    Args:
        pid: The server's first process; None for one on another machine.
    """
    if pid is None:
        return 0.0
    first = psutil.Process(pid)
    total = 0.0
    for process in (first, *first.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def measure(func: Callable[..., Any], *arguments: Any, setup: Callable[..., Any] | None = None) -> Measurement:
    """Call a function in a fork of this process and measure it there.

    Args:
        func: The function; its imports must be done already, and no connection be open.
        *arguments: Its arguments.
        setup: A function to call first, unmeasured, in the same process; its result is appended to the arguments.

    Raises:
        RuntimeError: The function failed; its traceback is on the console.
    """
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_measure_and_send, args=(sender, func, arguments, setup))
    process.start()
    sender.close()
    try:
        measurement: Measurement = receiver.recv()
    except EOFError:
        raise RuntimeError(f"{func.__name__} failed") from None
    finally:
        process.join()
    return measurement


def _measure_and_send(
    sender: Connection, func: Callable[..., Any], arguments: tuple[Any, ...], setup: Callable[..., Any] | None
) -> None:
    all_arguments = (*arguments, setup(*arguments)) if setup else arguments
    gc.collect()
    start_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, start_cpu = time.perf_counter(), time.process_time()
    func(*all_arguments)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    sender.send(
        Measurement(seconds, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_rss) / _KIB_PER_MB)
    )
