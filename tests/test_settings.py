from __future__ import annotations

from datetime import date

import pytest

from bi_ops.errors import SettingsError
from bi_ops.settings import Settings


def test_defaults_are_the_documented_ones() -> None:
    settings = Settings.from_environment({})
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
        "deadline_hours": 24,
    }


def test_an_empty_value_counts_as_unset() -> None:
    assert Settings.from_environment({"MEG_REGIONS": "", "BI_MAX_SHRINK": ""}) == Settings.from_environment({})


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "On", " on "])
def test_the_gate_opens_on_these_words(value: str) -> None:
    assert Settings.from_environment({"BI_AGGREGATE": value}).aggregate


@pytest.mark.parametrize("value", ["0", "off", "false", "no", "2", "enabled"])
def test_the_gate_stays_shut_on_any_other(value: str) -> None:
    assert not Settings.from_environment({"BI_AGGREGATE": value}).aggregate


def test_regions_are_split_at_commas() -> None:
    assert Settings.from_environment({"MEG_REGIONS": "eu, uk,au_2"}).regions == ("eu", "uk", "au_2")


@pytest.mark.parametrize(
    ("value", "regions"),
    [("on", ("eu", "uk")), ("1", ("eu", "uk")), ("off", ()), ("uk", ("uk",)), (" eu , uk ", ("eu", "uk")), ("", ())],
)
def test_names_are_replaced_in_all_regions_or_in_some(value: str, regions: tuple[str, ...]) -> None:
    settings = Settings.from_environment({"MEG_REGIONS": "eu,uk", "BI_PSEUDONYMISE": value})
    assert settings.pseudonymise == regions


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("MEG_REGIONS", "EU", "[a-z][a-z0-9_]*"),
        ("MEG_REGIONS", "eu,,uk", "[a-z][a-z0-9_]*"),
        ("MEG_REGIONS", "eu:west", "[a-z][a-z0-9_]*"),
        ("MEG_REGIONS", "eu,eu", "once"),
        ("MEG_REGIONS", "eu,no", "not words for on and off"),
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
        ("BI_PSEUDONYMISE", "mars", "out of MEG_REGIONS"),
        ("BI_SETTLE_MINUTES", "-1", "greater than or equal to 0"),
        ("BI_SETTLE_MINUTES", "soon", "number"),
        ("BI_DEADLINE_HOURS", "0", "greater than 0"),
        ("BI_DEADLINE_HOURS", "soon", "number"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({variable: value})
    message = str(caught.value)
    assert variable in message
    assert repr(value) in message
    assert allowed in message
