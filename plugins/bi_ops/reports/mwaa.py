"""What the page says on Amazon MWAA, which runs the web server outside the network of the scheduler and the workers."""

from __future__ import annotations

import os

from bi_ops.errors import MongoUnavailableError, ReportsUnavailableError
from bi_ops.reports.circuit_breaker import RETRY_SECONDS


def is_mwaa() -> bool:
    """Whether this process runs on MWAA, which sets this variable and lets no startup script change it."""
    return os.environ.get("AWS_EXECUTION_ENV", "").startswith("Amazon_MWAA_")


def isolation_error(error: MongoUnavailableError) -> ReportsUnavailableError:
    """What a web server on MWAA says that has never reached MongoDB.

    Args:
        error: Why its last attempt failed.
    """
    return ReportsUnavailableError(
        "Amazon MWAA's web server cannot reach MongoDB",
        retry_after=error.retry_after if isinstance(error, ReportsUnavailableError) else RETRY_SECONDS,
        context="the reports",
        expected="a route from the web server's network, which is not that of the tasks, to MongoDB",
        actual=error.message,
        hint="Retried automatically; loads are not affected. If it persists, use Atlas Charts or the emails of "
        "bi_digest instead, or give the web server a route: docs/mwaa.md, Reports.",
    )
