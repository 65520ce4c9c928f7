"""The results of the doctor's checks, and the report of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from bi_ops.errors import BiError, labelled_details


class Status(str, Enum):
    """The outcome of a check."""

    OK = "ok"
    WARNING = "warning"
    """The jobs work, but something should be improved."""
    FAILED = "failed"
    """The jobs would fail, be wrong, or be unsafe."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: What was checked: `settings`, `MEG <region>` or `MongoDB`.
        check: The check's name.
        status: Its outcome.
        message: What was found.
        expected: What would have been right; for a problem only, as `actual` and `hint`.
        actual: The actual value or state, where the message does not have it.
        hint: What to do next.
    """

    subject: str
    check: str
    status: Status
    message: str
    expected: str = ""
    actual: str = ""
    hint: str = ""


def check_result(
    subject: str,
    check: str,
    problem: str,
    *,
    ok_message: str,
    expected: str,
    actual: str = "",
    hint: str,
    warn_only: bool = False,
) -> Finding:
    """The finding of a check that fails, or with `warn_only` warns, if there is a `problem`; else it is ok."""
    if not problem:
        return Finding(subject, check, Status.OK, ok_message)
    status = Status.WARNING if warn_only else Status.FAILED
    return Finding(subject, check, status, problem, expected, actual, hint)


CheckTarget = TypeVar("CheckTarget")


def run_checks(
    subject: str, checks: Sequence[tuple[str, Callable[[CheckTarget], Iterable[Finding]]]], target: CheckTarget
) -> Iterator[Finding]:
    """Run the checks one after another; an error in one of them becomes a finding and stops no other.

    Args:
        subject: What is checked.
        checks: The name of each check, and its function.
        target: What each function is called with.
    """
    for name, check in checks:
        try:
            yield from check(target)
        except BiError as error:
            yield failed_check(subject, name, error)
        except Exception as error:
            yield Finding(
                subject,
                name,
                Status.FAILED,
                "the check itself raised an error",
                actual=f"{type(error).__name__}: {error}",
                hint="Check the connection. If it is right, report this as a bug.",
            )


def failed_check(subject: str, check: str, error: BiError) -> Finding:
    """The finding of a check that an error ended."""
    return Finding(subject, check, Status.FAILED, error.message, error.expected, error.actual, error.hint)


def format_report(findings: Sequence[Finding]) -> str:
    """All findings as text, by subject: a line for each, and one for each further part of a problem."""
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    width = max((len(finding.check) for finding in findings), default=0)
    lines = [f"BI doctor: {len(findings)} checks, {', '.join(f'{n} {status.value}' for status, n in counts.items())}"]
    subject = ""
    for finding in findings:
        if finding.subject != subject:
            subject = finding.subject
            lines += ["", subject]
        lines.append(f"  {finding.status.value:<8} {finding.check:<{width}}  {finding.message}")
        details = labelled_details(finding.expected, finding.actual, finding.hint)
        lines += [f"  {'':<8} {'':<{width}}  {label}: {text}" for label, text in details]
    return "\n".join(lines)
