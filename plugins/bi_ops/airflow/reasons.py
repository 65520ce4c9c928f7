"""Why a task failed or was skipped, as lines of its log that can be read in Airflow's log view without scrolling."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from bi_ops.errors import BiError

_WIDTH = 84
"""Characters that Airflow's log view shows in a window of 1280 px, beside the time and the level."""


def log_reason(log: Callable[[str], object], error: BiError) -> None:
    """Log an error, one thought a line: what happened and where, expected, actual, hint.

    Args:
        log: Logs a line, such as `self.log.error`.
        error: The error.
    """
    for line in reason_lines(error):
        log(line)


def reason_lines(error: BiError) -> list[str]:
    """The lines of an error."""
    lines = textwrap.wrap(error.summary, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    for label, text in error.details:
        for paragraph in text.splitlines():
            lines += textwrap.wrap(f"{label}: {paragraph}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return lines
