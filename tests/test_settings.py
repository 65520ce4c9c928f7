"""Tests the defaults and the validation of the settings."""

from __future__ import annotations

from datetime import date

import pytest

from bi_ops.errors import SettingsError
from bi_ops.settings import Settings

pytestmark = pytest.mark.fast


def test_defaults_match_documents() -> None:
    """The defaults are the documented ones."""
    settings = Settings.from_env({})
    assert settings.model_dump() == {
        "aggregate": False,
        "regions": ("local",),
        "timezone": "UTC",
        "start_date": date(2026, 1, 1),
        "forms_per_chunk": 10,
        "max_mapped_tasks": 32,
        "max_parallel_chunks": 8,
        "max_shrink": 0.5,
        "pseudonymise": (),
        "settle_minutes": 5,
        "self_heal": False,
        "max_heal_periods": 3,
        "deadline_hours": 24,
    }


def test_empty_value_is_unset() -> None:
    """An empty value counts as unset."""
    assert Settings.from_env({"MEG_REGIONS": "", "BI_MAX_SHRINK": ""}) == Settings.from_env({})


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "On", " on "])
def test_gate_opens_on_true_words(value: str) -> None:
    """These words switch the gate on."""
    assert Settings.from_env({"BI_AGGREGATE": value}).aggregate


@pytest.mark.parametrize("value", ["0", "off", "false", "no", "2", "enabled"])
def test_gate_stays_closed_otherwise(value: str) -> None:
    """Any other word leaves the gate closed."""
    assert not Settings.from_env({"BI_AGGREGATE": value}).aggregate


def test_regions_split_at_commas() -> None:
    """Regions are split at commas."""
    assert Settings.from_env({"MEG_REGIONS": "eu, uk,au_2"}).regions == ("eu", "uk", "au_2")


@pytest.mark.parametrize(
    ("value", "regions"),
    [("on", ("eu", "uk")), ("1", ("eu", "uk")), ("off", ()), ("uk", ("uk",)), (" eu , uk ", ("eu", "uk")), ("", ())],
)
def test_pseudonymise_all_or_some_regions(value: str, regions: tuple[str, ...]) -> None:
    """BI_PSEUDONYMISE covers all regions or some."""
    settings = Settings.from_env({"MEG_REGIONS": "eu,uk", "BI_PSEUDONYMISE": value})
    assert settings.pseudonymise == regions


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("MEG_REGIONS", "EU", "[a-z][a-z0-9_]*"),
        ("MEG_REGIONS", "eu,,uk", "[a-z][a-z0-9_]*"),
        ("MEG_REGIONS", "eu:west", "[a-z][a-z0-9_]*"),
        ("MEG_REGIONS", "eu,eu", "distinct"),
        ("MEG_REGIONS", "eu,no", "reserved boolean words"),
        ("BI_TIMEZONE", "Europe/Nowhere", "IANA"),
        ("BI_START_DATE", "01/02/2026", "date"),
        ("BI_START_DATE", "0", "a date such as 2026-01-01"),
        ("BI_FORMS_PER_CHUNK", "0", "greater than or equal to 1"),
        ("BI_FORMS_PER_CHUNK", "ten", "integer"),
        ("BI_MAX_MAPPED_TASKS", "1025", "less than or equal to 1024"),
        ("BI_MAX_PARALLEL_CHUNKS", "-1", "greater than or equal to 1"),
        ("BI_MAX_SHRINK", "50%", "number"),
        ("BI_MAX_SHRINK", "1.5", "less than or equal to 1"),
        ("BI_MAX_SHRINK", "nan", "less than or equal to 1"),
        ("BI_PSEUDONYMISE", "mars", "regions of MEG_REGIONS"),
        ("BI_SETTLE_MINUTES", "-1", "greater than or equal to 0"),
        ("BI_SETTLE_MINUTES", "soon", "number"),
        ("BI_MAX_HEAL_PERIODS", "0", "greater than or equal to 1"),
        ("BI_DEADLINE_HOURS", "0", "greater than 0"),
        ("BI_DEADLINE_HOURS", "soon", "number"),
    ],
)
def test_invalid_value_names_allowed(variable: str, value: str, allowed: str) -> None:
    """An invalid value is named with what is allowed."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({variable: value})
    message = str(caught.value)
    assert variable in message
    assert repr(value) in message
    assert allowed in message
