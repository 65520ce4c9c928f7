"""Benchmark results and their output: ratios with their goals, tables, a chart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """A ratio of two things measured in the same run.

    Attributes:
        name: The two measured things, as `a / b`.
        ratios: One per round.
        min_goal: The goal of a ratio that should be high.
        max_goal: The goal of a ratio that should be low.
        explanation: Why it may miss its goal.
    """

    name: str
    ratios: tuple[float, ...]
    min_goal: float | None = None
    max_goal: float | None = None
    explanation: str = ""

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)

    @property
    def goal(self) -> str:
        """The goal in words; empty where there is none."""
        if self.min_goal is not None:
            return f"at least {self.min_goal:g}"
        return "" if self.max_goal is None else f"at most {self.max_goal:g}"

    @property
    def goal_score(self) -> float | None:
        """The ratio relative to its goal: 1 or more reaches it; None without a goal."""
        if self.min_goal is not None:
            return self.ratio / self.min_goal
        return None if self.max_goal is None else self.max_goal / self.ratio

    @property
    def reason(self) -> str:
        """Why it misses its goal, as far as is known."""
        return self.explanation or "not understood"

    @property
    def misses_goal(self) -> bool:
        """Whether it has a goal and does not reach it."""
        return self.goal_score is not None and self.goal_score < 1

    def row(self) -> list[str]:
        """The ratio as a row of the table with `RATIO_COLUMNS`."""
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        row = [self.name, f"{self.ratio:.2f}", spread, str(len(self.ratios)), self.goal]
        if self.goal_score is None:
            return [*row, "", ""]
        return [*row, f"{1 - self.goal_score:.1%} short", self.reason] if self.misses_goal else [*row, "reached", ""]


RATIO_COLUMNS = ("ratio", "median", "spread", "rounds", "goal", "result", "reason")


@dataclass
class Section:
    """One benchmark's results.

    Attributes:
        title: The heading.
        columns: The column names of the table; the first column names the rows.
        rows: The table.
        ratios: The ratios, with their goals.
        notes: Explanations for the reader.
        seconds: The duration of the benchmark.
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: list[list[str]] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """The ratio of each round."""
    return tuple(above / below for above, below in zip(numerators, denominators, strict=True))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def chart_spec(sections: Sequence[Section]) -> dict[str, Any]:
    """A Vega-Lite chart of each ratio that has a goal, relative to the goal."""
    values = [
        {"section": section.title, "ratio": ratio.name, "score": round(ratio.goal_score, 3)}
        for section in sections
        for ratio in section.ratios
        if ratio.goal_score is not None
    ]
    bar = {
        "mark": {"type": "bar", "height": 12},
        "encoding": {
            "y": {"field": "ratio", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 420}},
            "x": {
                "field": "score",
                "type": "quantitative",
                "scale": {"type": "log"},
                "title": "relative to the goal (logarithmic; 1 reaches it)",
            },
            "x2": {"datum": 1},
            "color": {
                "condition": {"test": "datum.score >= 1", "value": "#2a7f62"},
                "value": "#c8553d",
            },
        },
    }
    rule = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {"x": {"datum": 1}}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": values},
        "width": 460,
        "height": {"step": 20},
        "background": "white",
        "layer": [bar, rule],
    }
