"""What the page says on Amazon MWAA, which runs the web server outside the network of the scheduler and the workers."""

from __future__ import annotations

import os

from bi_ops.errors import MongoUnavailableError, ReportsUnavailableError
from bi_ops.reports.circuit_breaker import RETRY_SECONDS

MWAA_VARIABLE, MWAA_VALUE = "AWS_EXECUTION_ENV", "Amazon_MWAA_"
"""The variable that MWAA sets in every process, and the start of its value; no startup script can change it.

https://github.com/aws/amazon-mwaa-docker-images
https://docs.aws.amazon.com/mwaa/latest/userguide/using-startup-script.html
"""


def is_mwaa() -> bool:
    """Whether this process runs on MWAA."""
    return os.environ.get(MWAA_VARIABLE, "").startswith(MWAA_VALUE)


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
