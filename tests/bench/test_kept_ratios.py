"""Tests which ratios of a benchmark are named as worse than the kept ones."""

from __future__ import annotations

import pytest

from bench.kept_ratios import worse_than_kept
from bench.results import Ratio, Section

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("now", "kept", "is_worse"),
    [
        ((1.5, 1.6, 1.7), (1.0, 1.1, 1.2), True),
        ((1.2, 1.3, 1.4), (1.0, 1.2, 1.4), False),
        ((0.5, 0.6, 0.7), (1.0, 1.1, 1.2), False),
        ((1.05, 1.05), (1.0, 1.0), False),
        ((1.15, 1.15), (1.0, 1.0), True),
        ((1.25,), (1.0, 1.0), False),
        ((1.35,), (1.0, 1.0), True),
        ((9.0,), (), False),
    ],
)
def test_worse_ratio_is_named(now: tuple[float, ...], kept: tuple[float, ...], *, is_worse: bool) -> None:
    """A ratio that should be low counts as worse if it has grown by more than its spread, or its least margin."""
    section = Section("some", ratios=[Ratio("low", now, max_goal=1), Ratio("without a goal", now)])
    names = [line.partition(":")[0] for line in worse_than_kept([section], {"low": kept, "without a goal": (0.1,)})]
    assert names == (["low"] if is_worse else [])


def test_fallen_ratio_is_named() -> None:
    """A ratio that should be high counts as worse if it has fallen."""
    fallen, risen = Ratio("fallen", (2.0, 2.1), min_goal=1), Ratio("risen", (3.0, 3.1), min_goal=1)
    kept = {"fallen": (2.5, 2.6), "risen": (2.5, 2.6)}
    [line] = worse_than_kept([Section("some", ratios=[fallen, risen])], kept)
    assert line == "fallen: 2.05, kept 2.55 (2.50 to 2.60)"
