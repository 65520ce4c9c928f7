"""Tests that a month is loaded correctly while its tasks are killed, run twice, or wrongly cleared or marked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.environment import ChaosEnvironment
from tests.chaos.faults import RUN_FAULTS, TASK_FAULTS, FaultKind


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", TASK_FAULTS + RUN_FAULTS, ids=lambda kind: kind.name)
def test_month_survives_task_fault(
    chaos: ChaosEnvironment, kind: FaultKind, record_property: Callable[[str, object], None], *, all_faults: bool
) -> None:
    """No document is lost, doubled, stale or seen in a half-loaded slice."""
    kind.inject_all(chaos, all_faults=all_faults)
    record_property("chaos", chaos.stats.as_property("tasks and servers"))
    chaos.assert_whole()
