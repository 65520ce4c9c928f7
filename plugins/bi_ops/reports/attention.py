"""The rule by which a client needs attention, and its definitions: sizes, changes and the score with its reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

_MAX_SCORE = 100


@dataclass(frozen=True)
class Step:
    """Points from a threshold on; of several steps the highest that is reached counts.

    Attributes:
        at_least: The threshold.
        points: The points.
    """

    at_least: Fraction | int
    points: int


@dataclass(frozen=True)
class AttentionRule:
    """The thresholds and weights; `docs/concepts.md` states the same ones.

    Attributes:
        decline: By the decline of submissions on the quarter before, as a share of these.
        min_previous_submissions: The fewest submissions of the quarter before with which a decline counts.
        silence: By the days since the last submission.
        never_submitted_days: How long ago, in days, a client without a submission must have been created.
        never_submitted: The points of such a client.
        churn: By the forms that churned in the quarter, as a share of those used the quarter before.
        min_forms_churned: The fewest churned forms that count.
        at_risk: The score from which the level is `at risk`.
        watch: The score from which it is `watch`.
    """

    decline: tuple[Step, ...] = (Step(Fraction(1, 4), 20), Step(Fraction(1, 2), 40))
    min_previous_submissions: int = 20
    silence: tuple[Step, ...] = (Step(30, 20), Step(60, 40))
    never_submitted_days: int = 90
    never_submitted: int = 40
    churn: tuple[Step, ...] = (Step(Fraction(1, 3), 10), Step(Fraction(2, 3), 20))
    min_forms_churned: int = 2
    at_risk: int = 40
    watch: int = 20


RULE = AttentionRule()
SIZES = (("small", 0), ("medium", 50), ("large", 250))
"""The sizes of clients, each with its fewest users."""


@dataclass(frozen=True)
class ClientUse:
    """What the rule reads of one client; None is unknown.

    Attributes:
        is_active: Whether it is a client now.
        as_of: The instant that the snapshot of institutions describes.
        created_at: When it was created.
        last_submitted_at: Its last submission ever; None without one.
        submissions: Its submissions in the newest quarter.
        previous_submissions: Its submissions in the quarter before.
        forms_churned: Its forms that were used in the quarter before and not in the newest.
        forms_used_before: Its forms that were used in the quarter before.
    """

    is_active: bool
    as_of: datetime | None = None
    created_at: datetime | None = None
    last_submitted_at: datetime | None = None
    submissions: int | None = None
    previous_submissions: int | None = None
    forms_churned: int | None = None
    forms_used_before: int | None = None


@dataclass(frozen=True)
class Attention:
    """How much attention a client needs.

    Attributes:
        score: 0 to 100.
        level: `at risk`, `watch` or `none`.
        reasons: What gave points, in words, the most points first.
    """

    score: int = 0
    level: str = "none"
    reasons: list[str] = field(default_factory=list)


def assess(use: ClientUse, rule: AttentionRule = RULE) -> Attention:
    """How much attention a client needs; a client that has left needs none."""
    if not use.is_active:
        return Attention()
    reasons = sorted((reason for reason in _reasons(use, rule) if reason[0]), key=lambda reason: -reason[0])
    score = min(_MAX_SCORE, sum(points for points, _ in reasons))
    level = "at risk" if score >= rule.at_risk else "watch" if score >= rule.watch else "none"
    return Attention(score, level, [text for _, text in reasons])


def _reasons(use: ClientUse, rule: AttentionRule) -> Iterator[tuple[int, str]]:
    """The points of each reason, 0 where it does not apply, and its words."""
    now, before = use.submissions, use.previous_submissions
    if now is not None and before and before >= rule.min_previous_submissions:
        decline = Fraction(before - now, before)
        yield _points(rule.decline, decline), f"submissions down {int(100 * decline)} % on last quarter"
    days = days_since(use.as_of, use.last_submitted_at)
    if days is not None:
        yield _points(rule.silence, days), f"no submission for {days} days"
    elif use.as_of and use.created_at and use.created_at < use.as_of - timedelta(days=rule.never_submitted_days):
        yield rule.never_submitted, "no submission ever"
    churned, used = use.forms_churned, use.forms_used_before
    if churned is not None and used and churned >= rule.min_forms_churned:
        yield _points(rule.churn, Fraction(churned, used)), f"{churned} of {used} forms churned"


def _points(steps: tuple[Step, ...], value: Fraction | int) -> int:
    """The points of the highest step that the value reaches."""
    return max((step.points for step in steps if value >= step.at_least), default=0)


def size(users: int | None) -> str | None:
    """The size of a client with this number of users."""
    if users is None:
        return None
    return [name for name, fewest in SIZES if users >= fewest][-1]


def days_since(as_of: datetime | None, instant: datetime | None) -> int | None:
    """The whole days from an instant to the as-of instant."""
    return None if as_of is None or instant is None else (as_of - instant).days


def percent(part: int | None, whole: int | None) -> float | None:
    """A share in %, with one decimal; None where the whole is 0 or unknown."""
    return None if part is None or not whole else round(100 * part / whole, 1)


def percent_change(now: int | None, base: int | None) -> float | None:
    """The change on a base in %, with one decimal; None where the base is 0 or unknown."""
    return None if now is None or base is None else percent(now - base, base)


def difference(now: int | None, base: int | None) -> int | None:
    """The change on a base; None where either is unknown."""
    return None if now is None or base is None else now - base
