"""A client of Airflow's REST API that waits for a slow server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from dev.console import console
from dev.processes import StackError

FIRST_TIMEOUT = 20.0
"""How many seconds a call waits for its answer at first; doubled after each timeout."""
_MAX_TIMEOUT = 120.0
_DEFAULT_SECONDS = 600.0
_PROGRESS_SECONDS = 20.0


class ApiClient(httpx.Client):
    """Retries each call that gets no answer until a deadline, and prints its progress.

    A call whose answer is lost may have had its effect: give what it creates an id, so that the retry conflicts.

    Args:
        url: The API's address.
        check_server: Raises an error once the server has ended, which ends the retries.
    """

    def __init__(self, url: str, check_server: Callable[[], None]) -> None:
        super().__init__(base_url=url, trust_env=False)
        self._check_server = check_server
        self._deadline: float | None = None

    @contextmanager
    def retrying_until(self, deadline: float) -> Iterator[None]:
        """Within the block, retry calls until this `time.monotonic()` instead of for ten minutes each."""
        previous, self._deadline = self._deadline, deadline
        try:
            yield
        finally:
            self._deadline = previous

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send the request, and retry it until it is answered.

        Raises:
            StackError: The deadline passed without an answer, or the server has ended.
        """
        began = time.monotonic()
        deadline = began + _DEFAULT_SECONDS if self._deadline is None else self._deadline
        timeout, next_progress = FIRST_TIMEOUT, began
        while True:
            limit = max(1.0, min(timeout, deadline - time.monotonic()))
            request.extensions = {**request.extensions, "timeout": httpx.Timeout(limit).as_dict()}
            try:
                return super().send(request, **options)
            except httpx.TransportError as error:
                cause = type(error).__name__
                if isinstance(error, httpx.TimeoutException):
                    timeout = min(2 * timeout, _MAX_TIMEOUT)
            self._check_server()
            now = time.monotonic()
            if now >= deadline:
                raise StackError(_give_up_message(request, now - began, cause))
            if now >= next_progress:
                _print_progress(now - began, deadline - now, cause)
                next_progress = now + _PROGRESS_SECONDS
            time.sleep(min(1.0, deadline - now))


def _print_progress(waited: float, left: float, cause: str) -> None:
    console.print(
        f"Airflow's API has not answered for {waited:.0f} s ({cause}). Retrying for {left:.0f} s at most.",
        style="yellow",
        highlight=False,
    )


def _give_up_message(request: httpx.Request, waited: float, cause: str) -> str:
    return (
        f"Airflow's API did not answer {request.method} {request.url.path} within {waited:.0f} s ({cause}). "
        "Hint: the machine is too busy or short of memory; end other programs, then run the command again."
    )
