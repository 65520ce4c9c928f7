"""What a run of `bi_backfill` looks at; a module of its own, so that parsing a DAG imports no driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bi_ops.catalog.periods import Period


@dataclass(frozen=True)
class Selection:
    """What a run of `bi_backfill` looks at.

    Attributes:
        jobs: The names of the jobs.
        regions: The regions.
        first: The first month; None for the month of `BI_START_DATE`.
        last: The last month; None for the last that has ended, and for the present state.
        only_missing: Whether slices that are published are left out.
    """

    jobs: Sequence[str]
    regions: Sequence[str]
    first: Period | None = None
    last: Period | None = None
    only_missing: bool = True
