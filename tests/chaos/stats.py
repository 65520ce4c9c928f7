"""What happened to the loads and to the reader while faults were injected."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class ChaosStats:
    """The faults that were injected, and their effects.

    `freed` counts the tasks that stayed queued after a kill until the scheduler was started again; `remarks` are
    printed below the table.
    """

    faults: Counter[str] = field(default_factory=Counter)
    freed: int = 0
    attempts: int = 0
    loads: int = 0
    reads: int = 0
    unread: int = 0
    lost: int = 0
    doubled: int = 0
    stale: int = 0
    torn_reads: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def as_property(self, title: str) -> dict[str, Any]:
        """The statistics so far, as a test records them for the summary at the end (tests/chaos/conftest.py)."""
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        return {**asdict(self), "faults": dict(self.faults), "title": title, "worker": worker}
