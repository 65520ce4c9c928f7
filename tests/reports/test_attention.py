"""Tests the rule of attention at each of its thresholds, and that the documentation states the same one."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bi_ops.catalog.jobs import get_job
from bi_ops.catalog.security_risks import RISKS, SETTINGS
from bi_ops.catalog.sql_templates import include_dir
from bi_ops.reports.attention import RULE, SIZES, ClientUse, assess, size
from tests.conftest import ROOT
from tests.meg_factory import utc

pytestmark = pytest.mark.fast

AS_OF = utc(2026, 11, 1)
QUIET = ClientUse(is_active=True, as_of=AS_OF, created_at=utc(2020, 1, 1), last_submitted_at=AS_OF)


@pytest.mark.parametrize(
    ("use", "score", "level", "reasons"),
    [
        ({}, 0, "none", []),
        ({"submissions": 76, "previous_submissions": 100}, 0, "none", []),
        ({"submissions": 75, "previous_submissions": 100}, 20, "watch", ["submissions down 25 % on last quarter"]),
        ({"submissions": 38, "previous_submissions": 100}, 40, "at risk", ["submissions down 62 % on last quarter"]),
        ({"submissions": 0, "previous_submissions": 19}, 0, "none", []),
        ({"submissions": None, "previous_submissions": 100}, 0, "none", []),
        ({"submissions": 10, "previous_submissions": None}, 0, "none", []),
        ({"last_submitted_at": AS_OF - timedelta(days=29, hours=23)}, 0, "none", []),
        ({"last_submitted_at": AS_OF - timedelta(days=30)}, 20, "watch", ["no submission for 30 days"]),
        ({"last_submitted_at": AS_OF - timedelta(days=60)}, 40, "at risk", ["no submission for 60 days"]),
        ({"last_submitted_at": None}, 40, "at risk", ["no submission ever"]),
        ({"last_submitted_at": None, "created_at": AS_OF - timedelta(days=90)}, 0, "none", []),
        ({"forms_churned": 1, "forms_used_before": 1}, 0, "none", []),
        ({"forms_churned": 2, "forms_used_before": 7}, 0, "none", []),
        ({"forms_churned": 2, "forms_used_before": 6}, 10, "none", ["2 of 6 forms churned"]),
        ({"forms_churned": 6, "forms_used_before": 9}, 20, "watch", ["6 of 9 forms churned"]),
        (
            {
                "submissions": 0,
                "previous_submissions": 50,
                "last_submitted_at": AS_OF - timedelta(days=80),
                "forms_churned": 9,
                "forms_used_before": 9,
            },
            100,
            "at risk",
            ["submissions down 100 % on last quarter", "no submission for 80 days", "9 of 9 forms churned"],
        ),
    ],
)
def test_attention_counts_each_reason(use: dict[str, Any], score: int, level: str, reasons: list[str]) -> None:
    """Each threshold gives its points and its words."""
    attention = assess(replace(QUIET, **use))
    assert (attention.score, attention.level, attention.reasons) == (score, level, reasons)
    assert assess(replace(QUIET, is_active=False, **use)).score == 0


def test_attention_rule_is_documented() -> None:
    """The table of the documentation has the thresholds and points of the rule, and the sizes."""
    text = (ROOT / "docs" / "concepts.md").read_text()
    section = text[text.index("## Clients that need attention") :].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    points = [tuple(map(int, re.findall(r"\d+", row[2]))) for row in rows if len(row) == 3 and re.search(r"\d", row[2])]
    assert points == [
        *((step.points,) for step in RULE.decline),
        *((step.points,) for step in RULE.silence),
        (RULE.never_submitted,),
        *((step.points,) for step in RULE.churn),
    ]
    thresholds = [int(number) for row in rows if len(row) == 3 for number in re.findall(r"(\d+) (?:%|days)", row[1])]
    assert thresholds == [
        *(int(100 * step.at_least) for step in RULE.decline),
        *(step.at_least for step in RULE.silence),
        RULE.never_submitted_days,
    ]
    assert f"at least {RULE.min_previous_submissions} submissions" in section
    assert f"at least {RULE.min_forms_churned} forms" in section
    assert [f"at least {step.at_least} of the forms" in section for step in RULE.churn] == [True, True]
    assert f"*at risk* from {RULE.at_risk} points, *watch* from {RULE.watch}" in section
    for name, fewest in SIZES[1:]:
        assert re.search(rf"{name}\w* .*{fewest}|{fewest}.* {name}", section), name


@pytest.mark.parametrize(
    ("users", "name"), [(None, None), (0, "small"), (49, "small"), (50, "medium"), (249, "medium"), (250, "large")]
)
def test_size_follows_users(users: int | None, name: str | None) -> None:
    """A client's size is that of its active users."""
    assert size(users) == name


def test_security_risks_equal_sql() -> None:
    """The declared risks are those of the SQL template, and the settings those that may be unknown in it."""
    sql = (include_dir() / "sql" / "security_risk_clients.sql").read_text()
    rules = {code: (int(weight), rule) for code, weight, rule in re.findall(r"\('(\w+)', (\d+), (.*)\)", sql)}
    assert {risk.code: risk.points for risk in RISKS} == {code: weight for code, (weight, _) in rules.items()}
    assert all(risk.setting in rules[risk.code][1] for risk in RISKS)
    assert [setting.name for setting in SETTINGS] == re.findall(r"\('(\w+)', client_security\.\w+ IS NULL\)", sql)
    fields = {field.name for field in get_job("security_risk_clients").fields}
    assert {setting.name for setting in SETTINGS} <= fields
