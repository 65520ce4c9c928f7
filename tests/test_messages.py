"""Tests that every message says what happened and where, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bi_ops.doctor.results import Finding, Status, format_report
from bi_ops.errors import ErrorRule, MongoUnavailableError, SourceUnavailableError, StagingError
from bi_ops.meg.postgres_error_rules import ERROR_RULES as MEG_RULES
from bi_ops.mongo.mongo_error_rules import ERROR_RULES as MONGO_RULES
from dev.generate_runbook import collect_messages, failure_table, runbook_table

pytestmark = pytest.mark.fast


def test_error_text_has_three_parts() -> None:
    error = StagingError("it failed", context="top_users eu", expected="one", actual="two.", hint="Clear it.")
    assert str(error) == "top_users eu: it failed. Expected: one; actual: two. Hint: Clear it."
    assert error.details == [("Expected", "one"), ("Actual", "two."), ("Hint", "Clear it.")]


def test_error_text_omits_missing_parts() -> None:
    assert str(StagingError("it failed", context="here", actual="two", hint="Wait.")) == (
        "here: it failed. Actual: two. Hint: Wait."
    )
    assert str(StagingError("it failed", context="here", hint="Wait.")) == "here: it failed. Hint: Wait."


@pytest.mark.parametrize("rules", [MEG_RULES, MONGO_RULES], ids=["MEG", "MongoDB"])
def test_rule_messages_are_unique(rules: Sequence[ErrorRule]) -> None:
    assert len({rule.message for rule in rules}) == len(rules)


@pytest.mark.parametrize(
    ("both", "code", "text", "expected"),
    [
        (False, 1, "other", True),
        (False, 2, "A Timeout", True),
        (False, 2, "other", False),
        (True, 1, "a timeout", True),
        (True, 1, "other", False),
    ],
)
def test_rule_matches_code_or_text(both: bool, code: int, text: str, expected: bool) -> None:
    rule = ErrorRule(SourceUnavailableError, "late", "", "Wait.", codes=(1,), pattern="timeout", both=both)
    assert rule.matches(code, text) is expected
    assert not ErrorRule(MongoUnavailableError, "late", "", "Wait.").matches(None, text)


def table_rows(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_retryable_hints_mention_retry() -> None:
    """The hint of each retried error begins with "Retried automatically", and no other hint does."""
    rows = table_rows(runbook_table(collect_messages()))
    assert len(rows) > 90
    for message, retried, hint in rows:
        assert hint, message
        assert hint.startswith("Retried automatically") is (retried == "yes"), message


def test_failure_table_is_part_of_runbook() -> None:
    messages = collect_messages()
    rows = table_rows(failure_table(messages))
    assert 10 <= len(rows) <= 15
    assert all(row in table_rows(runbook_table(messages)) for row in rows)


def test_report_labels_parts_of_problems() -> None:
    findings = [
        Finding("MEG eu", "TLS", Status.OK, "on"),
        Finding("MEG eu", "privileges", Status.FAILED, "too many", "read", "write", "Revoke write."),
    ]
    assert format_report(findings).splitlines() == [
        "BI doctor: 2 checks, 1 ok, 0 warning, 1 failed",
        "",
        "MEG eu",
        "  ok       TLS         on",
        "  failed   privileges  too many",
        "                       Expected: read",
        "                       Actual: write",
        "                       Hint: Revoke write.",
    ]
