"""Compares the ratios of a quick run with those of an earlier one, which the repository keeps."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.results import Ratio, Section

FILE = Path(__file__).with_name("kept_ratios.json")
_MIN_MARGIN = 0.1
"""The least difference that counts, as a share of the kept median: two rounds may be equal by chance."""
_SINGLE_MARGIN = 0.3
"""The same where a ratio has a single round, and so no spread."""


def read_kept() -> Mapping[str, Sequence[float]]:
    """The kept ratios of each round, by name; none if nothing is kept."""
    kept: dict[str, list[float]] = json.loads(FILE.read_text())["ratios"] if FILE.exists() else {}
    return kept


def keep(sections: Sequence[Section], machine: str) -> None:
    """Keep these ratios from now on."""
    ratios = {ratio.name: [round(value, 3) for value in ratio.ratios] for ratio in _with_goals(sections)}
    FILE.write_text(json.dumps({"machine": machine, "ratios": ratios}, indent=2) + "\n")


def worse_than_kept(sections: Sequence[Section], kept: Mapping[str, Sequence[float]]) -> list[str]:
    """What to say of each ratio that is worse than the kept one by more than the spread of either.

    A ratio without a goal has no better side, and is not compared.
    """
    lines = []
    for ratio in _with_goals(sections):
        before = kept.get(ratio.name, ())
        if before and _loss(ratio, before) > _margin(ratio.ratios, before):
            lines.append(
                f"{ratio.name}: {ratio.ratio:.2f}, kept {statistics.median(before):.2f} "
                f"({min(before):.2f} to {max(before):.2f})"
            )
    return lines


def _with_goals(sections: Sequence[Section]) -> list[Ratio]:
    return [ratio for section in sections for ratio in section.ratios if ratio.goal]


def _loss(ratio: Ratio, before: Sequence[float]) -> float:
    """How much worse the median is than before; negative if it is better."""
    difference = ratio.ratio - statistics.median(before)
    return -difference if ratio.min_goal is not None else difference


def _margin(now: Sequence[float], before: Sequence[float]) -> float:
    share = _SINGLE_MARGIN if min(len(now), len(before)) == 1 else _MIN_MARGIN
    return max(share * statistics.median(before), *(max(values) - min(values) for values in (now, before)))
