"""PostgreSQL as administrators set it up: each obstacle is reported by its name, and retried where time may heal it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from bi_ops.connections import open_meg
from bi_ops.doctor.examination import examine_all
from bi_ops.doctor.findings import Finding, Verdict
from bi_ops.errors import SettingsError
from bi_ops.settings import Settings
from bi_ops.source_timezone import check_timezone
from bi_ops.store import Store
from dev.stack import Databases
from tests.conftest import STACK
from tests.megs import utc
from tests.postgres_servers import server_without_timezone
from tests.test_operators import plan, plan_context

LACKING = "Europe/Kyiv"


def use(monkeypatch: pytest.MonkeyPatch, servers: Databases) -> None:
    """Let the region eu's connection, and MongoDB's, lead to these servers."""
    for name, value in servers.connections({"eu": "meg_eu"}).items():
        monkeypatch.setenv(name, value)


def examine(**settings: str) -> list[Finding]:
    environment = {"BI_AGGREGATE": "1", "MEG_REGIONS": "eu", **settings}
    return list(examine_all(Settings.from_environment(environment), ("eu",)))


@pytest.fixture(scope="module")
def zoneless(servers: Databases) -> Iterator[Databases]:
    """The databases, with a PostgreSQL that lacks a time zone which Python has."""
    with server_without_timezone(STACK.parent / "test-zoneless", servers, LACKING) as up:
        yield up


@pytest.mark.parametrize("name", ["UTC", "Europe/Dublin", "Europe/Kiev"])
def test_timezone_of_server_is_accepted(zoneless: Databases, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The lacking zone's other name, and all other zones, are accepted."""
    use(monkeypatch, zoneless)
    with open_meg("eu", reader="test") as meg:
        assert meg.has_timezone(name)
        check_timezone(meg, name, context="here")


@pytest.mark.parametrize("name", [LACKING, "Europe/Nowhere", "", "x'y"])
def test_timezone_unknown_to_server_is_refused(zoneless: Databases, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The error names the zone, is final, and leaves the connection usable."""
    use(monkeypatch, zoneless)
    with open_meg("eu", reader="test") as meg:
        with pytest.raises(SettingsError, match=r"does not have the time zone .*BI_TIMEZONE") as caught:
            check_timezone(meg, name, context="here")
        assert meg.has_timezone("UTC")
    assert caught.value.found == name
    assert "tzdata-legacy" in caught.value.cure
    assert not caught.value.heals_by_itself


def test_plan_refuses_timezone_unknown_to_server(
    zoneless: Databases, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan task fails at once, its error names the zone, and nothing is planned."""
    use(monkeypatch, zoneless)
    for name, value in {"BI_AGGREGATE": "1", "MEG_REGIONS": "eu", "BI_TIMEZONE": LACKING}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AirflowFailException, match=f"does not have the time zone {LACKING}"):
        plan(plan_context(utc(2026, 11, 1)))
    assert store.loads.count_documents({}) == 0


def test_doctor_names_timezone_unknown_to_server(
    zoneless: Databases, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor fails the zone that the server lacks, and passes another one."""
    assert store.live.name
    use(monkeypatch, zoneless)
    checks: dict[str, Any] = {}
    for name in (LACKING, "Europe/Dublin"):
        [checks[name]] = [each for each in examine(BI_TIMEZONE=name) if each.check == "time zone"]
    assert checks[LACKING].verdict is Verdict.FAILED
    assert LACKING in checks[LACKING].found
    assert checks["Europe/Dublin"].verdict is Verdict.OK
