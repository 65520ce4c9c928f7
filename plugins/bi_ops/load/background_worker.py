"""A background thread, so that a task can compute while it waits for MEG or MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

_SEND_GRACE_SECONDS = 0.003
"""How long `submit` waits for the call to be sent: otherwise both threads contend for Python's interpreter lock, which
is handed over only after 5 ms, while the server is idle."""


class BackgroundWorker:
    """Runs calls one after the other in its own thread.

    At most one call is pending. Its error is raised by the next `submit`, or at the end of the `with` block, which
    waits for the pending call.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[Any] | None = None

    def __enter__(self) -> BackgroundWorker:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._thread:
            if error_type is None:
                self._wait()

    def submit(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Start a call once the previous one has ended."""
        self._wait()
        self._pending = self._thread.submit(func, *args, **kwargs)
        wait([self._pending], _SEND_GRACE_SECONDS)

    def prefetch(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, each fetched while its predecessor is processed."""
        future = self._thread.submit(next, items, None)
        while (item := future.result()) is not None:
            future = self._thread.submit(next, items, None)
            yield item

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
