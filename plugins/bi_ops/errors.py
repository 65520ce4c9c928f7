"""The exception tree of MEG BI, and the rules by which drivers' errors are translated into it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


def abbreviate(names: Iterable[str], max_names: int = 3) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - max_names} more" if len(every) > max_names else ""
    return ", ".join(every[:max_names]) + more


def labelled_details(expected: str, actual: str, hint: str) -> list[tuple[str, str]]:
    """The parts of a message after its summary, as pairs of a label and a text; an empty part is left out."""
    pairs = (("Expected", expected), ("Actual", actual), ("Hint", hint))
    return [(label, text) for label, text in pairs if text]


def _comparison(expected: str, actual: str) -> str:
    """Expected and actual as one sentence with a leading space; empty if both are."""
    if expected and actual:
        return f" Expected: {expected}; actual: {actual.rstrip('.')}."
    if expected:
        return f" Expected: {expected.rstrip('.')}."
    return f" Actual: {actual.rstrip('.')}." if actual else ""


class BiError(Exception):
    """Something stopped a load.

    As a string: `<context>: <message>. Expected: <expected>; actual: <actual>. Hint: <hint>`.

    Args:
        message: What happened, as a sentence without its full stop.
        context: Where: a variable, a connection, a job with its region and period.
        expected: What would have been right.
        actual: The actual value or state, such as the driver's own error.
        hint: What to do next, as a whole sentence.
    """

    #: Whether the same attempt may succeed later without any change.
    retryable = False

    def __init__(self, message: str, *, context: str, expected: str = "", actual: str = "", hint: str) -> None:
        self.message, self.context, self.expected, self.actual, self.hint = message, context, expected, actual, hint
        super().__init__(f"{self.summary}.{_comparison(expected, actual)} Hint: {hint}")

    @property
    def summary(self) -> str:
        """What happened and where, in one line."""
        return f"{self.context}: {self.message}"

    @property
    def details(self) -> list[tuple[str, str]]:
        """Expected, actual and hint, as `labelled_details` gives them."""
        return labelled_details(self.expected, self.actual, self.hint)


@dataclass(frozen=True)
class ErrorRule:
    """Translates one kind of driver error.

    Attributes:
        error: The class to raise.
        message: What happened.
        expected: What would have been right.
        hint: What to do next.
        codes: The server's codes for it: SQLSTATEs, or MongoDB's numbers.
        pattern: A regular expression for the driver's text, upper and lower case alike.
        both: Whether code and text must match; by default one of them is enough.
    """

    error: type[BiError]
    message: str
    expected: str
    hint: str
    codes: tuple[int | str, ...] = ()
    pattern: str = ""
    both: bool = False

    def matches(self, code: int | str | None, text: str) -> bool:
        """Whether this rule is about an error with this code and text."""
        by_code = code in self.codes
        by_text = bool(self.pattern) and re.search(self.pattern, text, re.IGNORECASE) is not None
        return by_code and by_text if self.both else by_code or by_text

    def to_error(self, context: str, actual: str, *, expected: str = "") -> BiError:
        """The error to raise; `expected` replaces the rule's own."""
        return self.error(
            self.message, context=context, expected=expected or self.expected, actual=actual, hint=self.hint
        )


def find_rule(rules: Iterable[ErrorRule], code: int | str | None, text: str, default: ErrorRule) -> ErrorRule:
    """The first rule that matches an error's code or text, or the default."""
    return next((rule for rule in rules if rule.matches(code, text)), default)


class SettingsError(BiError):
    """A setting in the environment has a value that is not allowed."""


class PeriodError(BiError):
    """The requested period is malformed, or has not ended."""


class PeriodNotEndedError(BiError):
    """The as-of instant is slightly ahead of MEG's clock; a retry a little later succeeds."""

    retryable = True


class RunParametersError(BiError):
    """The parameters of a DAG run are invalid."""


class ConnectionConfigError(BiError):
    """An Airflow connection is missing, invalid or insecure."""


class SourceUnavailableError(BiError):
    """MEG cannot be reached, or ended a query early."""

    retryable = True


class SourceQueryError(BiError):
    """MEG rejected a query: a missing relation, a missing privilege, a wrong template."""


class InvalidSourceRowError(BiError):
    """A row from MEG cannot become a document: a missing column, a wrong type or size, a null or foreign key."""

    def located(self, place: str) -> InvalidSourceRowError:
        """The same error, with a place such as a column in its message."""
        message = f"{self.message}, in {place}"
        return type(self)(message, context=self.context, expected=self.expected, actual=self.actual, hint=self.hint)


class DuplicateKeyError(BiError):
    """Two rows would become the same document."""


class StagingError(BiError):
    """The staged data is incomplete, has expired or belongs to other settings, so it must not be published."""


class PartialPublishError(BiError):
    """A publish of several transactions stopped between two of them: the slice is partly new and partly old."""

    retryable = True


class ShrinkError(BiError):
    """The staged slice is so much smaller than the live one that the source is probably broken."""


class SupersededError(BiError):
    """Another run, or another attempt of the same task, works on the same slice."""

    retryable = True


class SkippedError(BiError):
    """There is nothing to do, so the task is skipped."""


class GateClosedError(SkippedError):
    """`BI_AGGREGATE` is off."""


class NotSelectedError(SkippedError):
    """The run was triggered for other jobs or regions."""


class DryRunError(SkippedError):
    """The run was triggered with `dry_run`, so it publishes nothing."""


class NoDigestError(SkippedError):
    """There is no digest to send: the month was sent, or it is not published in full."""


class StaleLoadError(SkippedError):
    """The live slice describes a later instant than the staged one, or was read from MEG later."""


class MongoUnavailableError(BiError):
    """MongoDB cannot be reached, or a command on it failed."""

    retryable = True


class NotificationError(BiError):
    """A notification was not delivered."""

    retryable = True


class ReportError(BiError):
    """A report's definition or a request for it is invalid."""


class MongoConfigurationError(BiError):
    """The MongoDB account lacks privileges, or the server or a collection does not meet the requirements."""


class ReportsUnavailableError(MongoUnavailableError):
    """The reports cannot be computed now; a later request may succeed.

    Args:
        message: As for every error.
        retry_after: Seconds after which to repeat the request.
        context: As for every error.
        expected: As for every error.
        actual: As for every error.
        hint: As for every error.
    """

    def __init__(
        self, message: str, *, retry_after: int, context: str, expected: str = "", actual: str = "", hint: str
    ) -> None:
        super().__init__(message, context=context, expected=expected, actual=actual, hint=hint)
        self.retry_after = retry_after
