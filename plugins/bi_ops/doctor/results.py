"""What an examination finds, and the report of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from bi_ops.errors import BiError


class Status(str, Enum):
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
        status: How it is.
        message: What there is.
        hint: What to do, where it is not well.
    """

    subject: str
    check: str
    status: Status
    message: str
    hint: str = ""


def check_result(
    subject: str, check: str, problem: str, *, ok_message: str, hint: str, warn_only: bool = False
) -> Finding:
    """A finding that is well where there is no `problem`."""
    if not problem:
        return Finding(subject, check, Status.OK, ok_message)
    return Finding(subject, check, Status.WARNING if warn_only else Status.FAILED, problem, hint)


CheckTarget = TypeVar("CheckTarget")


def run_checks(
    subject: str, checks: Sequence[tuple[str, Callable[[CheckTarget], Iterable[Finding]]]], target: CheckTarget
) -> Iterator[Finding]:
    """Make these checks one after another; what breaks one of them is a finding too, and stops no other.

    Args:
        subject: Whose checks they are.
        checks: What each is called, and what makes it.
        target: What they are made on.
    """
    for name, check in checks:
        try:
            yield from check(target)
        except BiError as error:
            yield failed_check(subject, name, error)
        except Exception as error:
            broken = f"the check itself broke: {type(error).__name__}: {error}"
            yield Finding(subject, name, Status.FAILED, broken, "Look at the connection and at this check's code.")


def failed_check(subject: str, check: str, error: BiError) -> Finding:
    """The finding that a check broke on."""
    details = "; ".join(
        f"{word} {what}" for word, what in (("expected", error.expected), ("found", error.actual)) if what
    )
    return Finding(subject, check, Status.FAILED, f"{error.message}{f' ({details})' if details else ''}", error.hint)


def format_report(findings: Sequence[Finding]) -> str:
    """All findings as text, by subject, each that is not well with its hint."""
    counts = {verdict: sum(finding.status is verdict for finding in findings) for verdict in Status}
    width = max((len(finding.check) for finding in findings), default=0)
    lines = [f"BI doctor: {len(findings)} checks, {', '.join(f'{n} {verdict.value}' for verdict, n in counts.items())}"]
    subject = ""
    for finding in findings:
        if finding.subject != subject:
            subject = finding.subject
            lines += ["", subject]
        lines.append(f"  {finding.status.value:<8} {finding.check:<{width}}  {finding.message}")
        if finding.hint:
            lines.append(f"  {'':<8} {'':<{width}}  -> {finding.hint}")
    return "\n".join(lines)
