"""What an examination finds, and the report of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from bi_ops.errors import BiError


class Verdict(str, Enum):
    """How grave a finding is."""

    OK = "ok"
    WARNING = "warning"
    """The jobs work, and something should be better."""
    FAILED = "FAILED"
    """The jobs would fail, be wrong, or be unsafe."""


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        subject: Whose it is: `settings`, `MEG <region>` or `MongoDB`.
        check: What was examined.
        verdict: How it is.
        found: What there is.
        cure: What to do, where it is not well.
    """

    subject: str
    check: str
    verdict: Verdict
    found: str
    cure: str = ""


def judged(subject: str, check: str, problem: str, *, fine: str, cure: str, warn: bool = False) -> Finding:
    """A finding that is well where there is no `problem`."""
    if not problem:
        return Finding(subject, check, Verdict.OK, fine)
    return Finding(subject, check, Verdict.WARNING if warn else Verdict.FAILED, problem, cure)


Examined = TypeVar("Examined")


def examine(
    subject: str, checks: Sequence[tuple[str, Callable[[Examined], Iterable[Finding]]]], patient: Examined
) -> Iterator[Finding]:
    """Make these checks one after another; what breaks one of them is a finding too, and stops no other.

    Args:
        subject: Whose checks they are.
        checks: What each is called, and what makes it.
        patient: What they are made on.
    """
    for name, check in checks:
        try:
            yield from check(patient)
        except BiError as error:
            yield failure(subject, name, error)
        except Exception as error:
            broken = f"the check itself broke: {type(error).__name__}: {error}"
            yield Finding(subject, name, Verdict.FAILED, broken, "Look at the connection and at this check's code.")


def failure(subject: str, check: str, error: BiError) -> Finding:
    """The finding that a check broke on."""
    details = "; ".join(
        f"{word} {what}" for word, what in (("expected", error.expected), ("found", error.found)) if what
    )
    return Finding(subject, check, Verdict.FAILED, f"{error.what}{f' ({details})' if details else ''}", error.cure)


def some(names: Iterable[str], at_most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - at_most} more" if len(every) > at_most else ""
    return ", ".join(every[:at_most]) + more


def report(findings: Sequence[Finding]) -> str:
    """All findings as text, by subject, each that is not well with its cure."""
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    width = max((len(finding.check) for finding in findings), default=0)
    lines = [f"BI doctor: {len(findings)} checks, {', '.join(f'{n} {verdict.value}' for verdict, n in counts.items())}"]
    subject = ""
    for finding in findings:
        if finding.subject != subject:
            subject = finding.subject
            lines += ["", subject]
        lines.append(f"  {finding.verdict.value:<8} {finding.check:<{width}}  {finding.found}")
        if finding.cure:
            lines.append(f"  {'':<8} {'':<{width}}  -> {finding.cure}")
    return "\n".join(lines)
