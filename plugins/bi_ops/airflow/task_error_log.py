"""Logs why a task failed or was skipped, in lines that fit Airflow's log view without scrolling."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from bi_ops.errors import BiError

_WIDTH = 84
"""The characters that fit in Airflow's log view beside the time and level, in a window of 1280 px."""


def log_error(log: Callable[[str], object], error: BiError) -> None:
    """Log an error: what happened and where, expected, actual and hint, each on its own line.

    Args:
        log: Logs a line, such as `self.log.error`.
        error: The error.
    """
    for line in error_lines(error):
        log(line)


def error_lines(error: BiError) -> list[str]:
    """The lines of an error."""
    lines = textwrap.wrap(error.summary, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    for label, text in error.details:
        for paragraph in text.splitlines():
            lines += textwrap.wrap(f"{label}: {paragraph}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return lines
