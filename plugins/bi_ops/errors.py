"""The errors that MEG BI raises on purpose: one tree, each message whole enough to act on."""

from __future__ import annotations

from collections.abc import Iterable


def abbreviate(names: Iterable[str], max_names: int = 3) -> str:
    """The first of some names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - max_names} more" if len(every) > max_names else ""
    return ", ".join(every[:max_names]) + more


class BiError(Exception):
    """Something stopped a load. The message says where, what was expected, what was found and what to do.

    Args:
        message: What is wrong, as a sentence without its full stop.
        context: What it concerns: a variable, a job with its region and period, a connection.
        expected: What would have been right.
        actual: What was there instead.
        hint: What the reader can do about it, as a whole sentence.
    """

    #: Whether the same attempt may succeed later without any change.
    retryable = False

    def __init__(self, message: str, *, context: str, expected: str = "", actual: str = "", hint: str) -> None:
        self.message, self.context, self.expected, self.actual, self.hint = message, context, expected, actual, hint
        details = "; ".join(
            f"{label} {detail}" for label, detail in (("expected", expected), ("found", actual)) if detail
        )
        super().__init__(f"{context}: {message}{f' ({details})' if details else ''}. {hint}")

    @property
    def summary(self) -> str:
        """What happened and where, in one line."""
        return f"{self.context}: {self.message}"

    @property
    def details(self) -> list[tuple[str, str]]:
        """The rest, as pairs of a label and a text; a label without a text is left out."""
        pairs = (("Expected", self.expected), ("Actual", self.actual), ("Hint", self.hint))
        return [(label, text) for label, text in pairs if text]


class SettingsError(BiError):
    """A setting in the environment has a value that is not allowed."""


class PeriodError(BiError):
    """The run has no period, or the requested one cannot be loaded."""


class PeriodNotEndedError(BiError):
    """The period, or the as-of instant, is not yet past by the clock that asks; clocks differ, and time heals it."""

    retryable = True


class RunRequestError(BiError):
    """The parameters of a DAG run ask for something that cannot be loaded."""


class ConnectionConfigError(BiError):
    """An Airflow connection lacks something or asks for something that MEG BI refuses."""


class SourceUnavailableError(BiError):
    """MEG cannot be reached, or gave up in the middle of a query."""

    retryable = True


class SourceQueryError(BiError):
    """MEG refused a query: a missing relation, a missing right, a wrong template."""


class InvalidSourceRowError(BiError):
    """A row of MEG's cannot become a document: a missing column, a wrong type or size, a null or foreign key."""

    def located(self, place: str) -> InvalidSourceRowError:
        """The same error with a place, such as a column, in its message."""
        message = f"{self.message}, in {place}"
        return type(self)(message, context=self.context, expected=self.expected, actual=self.actual, hint=self.hint)


class DuplicateKeyError(BiError):
    """Two rows would become the same document."""


class StagingError(BiError):
    """The staged data is not whole, is gone, or belongs to other settings, so it may not be published."""


class PartialPublishError(BiError):
    """A publish of several transactions stopped between two of them: the slice is partly new and partly old."""

    retryable = True


class ShrinkError(BiError):
    """The staged slice is so much smaller than the live one that the source is more likely broken."""


class SupersededError(BiError):
    """Another run, or another try of the same task, is at work on the same slice."""

    retryable = True


class SkippedError(BiError):
    """There is nothing to do; the task is skipped, and did not fail."""


class GateClosedError(SkippedError):
    """`BI_AGGREGATE` is off."""


class NotSelectedError(SkippedError):
    """The run was triggered for other jobs or regions."""


class DryRunError(SkippedError):
    """The run was triggered to check, and publishes nothing."""


class StaleSnapshotError(SkippedError):
    """The live slice describes a later instant, or was read from MEG later, than the staged one."""


class MongoUnavailableError(BiError):
    """MongoDB cannot be reached, or gave up in the middle of a command."""

    retryable = True


class ReportError(BiError):
    """A report is not defined as it must be, or was asked for what it cannot show."""


class MongoConfigurationError(BiError):
    """MongoDB does not let this account do what it must, or is not what it must be."""


class ReportsUnavailableError(MongoUnavailableError):
    """The reports are not computed now, so that Airflow's API server stays responsive; a later request may succeed.

    Args:
        message: As for every error.
        retry_after: After how many seconds to ask again.
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
