"""Reading and writing at the same time: while one server works for a task, the task and the other server go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

_SEND_GRACE_SECONDS = 0.003
"""Seconds in which what is to be done can be sent before the task goes on: else the two threads contend for the
interpreter, which changes hands after 5 ms only, while the server has nothing to do."""


class BackgroundWorker:
    """Does what it is asked to, one thing after the other, in a thread of its own.

    It is at most one item behind. What goes wrong there is raised here: when the next thing is asked
    for, or at the end of the `with` block, which waits for whatever is under way.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[Any] | None = None

    def __enter__(self) -> BackgroundWorker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._thread:
            if kind is None:
                self._wait()

    def submit(self, what: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """Begin to do this, once what was asked for before has been done."""
        self._wait()
        self._last = self._thread.submit(what, *arguments, **named)
        wait([self._last], _SEND_GRACE_SECONDS)

    def prefetch(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, of which the next is fetched while one is looked at."""
        coming = self._thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = self._thread.submit(next, items, None)
            yield item

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()
