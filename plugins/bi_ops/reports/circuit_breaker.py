"""A circuit breaker, so that no request waits for MongoDB while it is known to be down."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bi_ops.errors import ReportsUnavailableError

RETRY_SECONDS = 5
"""How long no request is sent to MongoDB after it did not answer."""


class CircuitBreaker:
    """Closed while MongoDB answers; open for some seconds after it did not; then one request at a time tries again.

    It belongs to one event loop, so it needs no lock.

    Attributes:
        has_succeeded: Whether MongoDB has ever answered.
    """

    def __init__(self) -> None:
        self.has_succeeded = False
        self._open = False
        self._probing = False
        self._retry_at = 0.0

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Let a request through, or raise at once.

        Raises:
            ReportsUnavailableError: MongoDB is known to be down, or another request is already probing it.
        """
        probe = self._open
        if probe:
            self._reject_unless_due()
            self._probing = True
        try:
            yield
        finally:
            if probe:
                self._probing = False

    def record_failure(self) -> None:
        """Record that MongoDB did not answer."""
        self._open, self._retry_at = True, time.monotonic() + RETRY_SECONDS

    def record_success(self) -> None:
        """Record that MongoDB answered."""
        self._open, self.has_succeeded = False, True

    def _reject_unless_due(self) -> None:
        seconds = self._retry_at - time.monotonic()
        if self._probing or seconds > 0:
            raise ReportsUnavailableError(
                "MongoDB did not answer a moment ago, so it is not queried now",
                retry_after=max(1, math.ceil(seconds)),
                context="the reports",
                hint="Retried automatically. If it persists, check that MongoDB is up, then reload the page.",
            )
