"""The results and their output: tables, ratios beside their goals, a picture, JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """A ratio of two things measured in the same run.

    Attributes:
        name: What is held against what.
        ratios: One a round.
        min_goal: The goal, where more is better.
        max_goal: The goal, where less is better.
        explanation: What keeps it from its goal, where it may fall short.
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
        """How many times as good as its goal it is; None where it has none."""
        if self.min_goal is not None:
            return self.ratio / self.min_goal
        return None if self.max_goal is None else self.max_goal / self.ratio

    @property
    def reason(self) -> str:
        """Why it falls short, as far as is known."""
        return self.explanation or "not understood"

    @property
    def misses_goal(self) -> bool:
        """Whether it has a goal that it does not reach."""
        return self.goal_score is not None and self.goal_score < 1

    def row(self) -> list[str]:
        """It as a row of the table of all figures."""
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        row = [self.name, f"{self.ratio:.2f}", spread, str(len(self.ratios)), self.goal]
        if self.goal_score is None:
            return [*row, "", ""]
        return [*row, f"{1 - self.goal_score:.1%} short", self.reason] if self.misses_goal else [*row, "reached", ""]


FIGURE_COLUMNS = ("ratio of", "median", "spread", "rounds", "goal", "", "why")


@dataclass
class Section:
    """One benchmark's results.

    Attributes:
        title: What it is about.
        columns: The names of the table's columns, the first of which names the rows.
        rows: The table.
        figures: The ratios.
        notes: What a reader must know to understand them.
        seconds: How long it took.
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: list[list[str]] = field(default_factory=list)
    figures: list[Ratio] = field(default_factory=list)
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
    """The figures that have a goal, as a Vega-Lite specification: how many times as good as the goal each is."""
    values = [
        {"section": section.title, "figure": figure.name, "reaches": round(figure.goal_score, 3)}
        for section in sections
        for figure in section.figures
        if figure.goal_score is not None
    ]
    bar = {
        "mark": {"type": "bar", "height": 12},
        "encoding": {
            "y": {"field": "figure", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 420}},
            "x": {
                "field": "reaches",
                "type": "quantitative",
                "scale": {"type": "log"},
                "title": "times as good as the goal (logarithmic)",
            },
            "x2": {"datum": 1},
            "color": {
                "condition": {"test": "datum.reaches >= 1", "value": "#2a7f62"},
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
