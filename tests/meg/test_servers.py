"""Tests PostgreSQL servers that lack a time zone or are standbys: each problem is named, and retried if useful."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from bi_ops.airflow import connections
from bi_ops.airflow.airflow_facts import read_airflow_facts
from bi_ops.airflow.connections import open_meg
from bi_ops.doctor.results import Finding, Status
from bi_ops.doctor.runner import run_all_checks
from bi_ops.errors import SettingsError, SourceUnavailableError
from bi_ops.meg.reader import MegReader
from bi_ops.meg.server_time_zone import check_timezone
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings
from dev.embedded_stack import DatabaseServers
from tests.airflow.test_operators import plan, plan_context
from tests.conftest import stack_folder
from tests.load_helpers import wait_until
from tests.meg.postgres_servers import server_without_timezone, standby
from tests.meg_factory import MegFactory, utc

MISSING_ZONE = "Europe/Kyiv"


def set_connections(monkeypatch: pytest.MonkeyPatch, servers: DatabaseServers) -> None:
    """Point the connections of the region eu and MongoDB to these servers."""
    for name, value in servers.connections({"eu": "meg_eu"}).items():
        monkeypatch.setenv(name, value)


def run_checks(**settings: str) -> list[Finding]:
    environment = {"BI_AGGREGATE": "1", "MEG_REGIONS": "eu", **settings}
    return list(run_all_checks(Settings.from_env(environment), ("eu",), connections, read_airflow_facts()))


@pytest.fixture(scope="module")
def zoneless(servers: DatabaseServers) -> Iterator[DatabaseServers]:
    """The databases, with a PostgreSQL that lacks a time zone which Python has."""
    with server_without_timezone(stack_folder("test-zoneless"), servers, MISSING_ZONE) as databases:
        yield databases


@pytest.mark.parametrize("name", ["UTC", "Europe/Dublin", "Europe/Kiev"])
def test_timezone_of_server_is_accepted(zoneless: DatabaseServers, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The missing zone's other name, and all other zones, are accepted."""
    set_connections(monkeypatch, zoneless)
    with open_meg("eu", application_name="test") as meg:
        assert meg.has_timezone(name)
        check_timezone(meg, name, context="here")


@pytest.mark.parametrize("name", [MISSING_ZONE, "Europe/Nowhere", "", "x'y"])
def test_timezone_unknown_to_server_is_refused(
    zoneless: DatabaseServers, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The error names the zone, is final, and leaves the connection usable."""
    set_connections(monkeypatch, zoneless)
    with open_meg("eu", application_name="test") as meg:
        with pytest.raises(SettingsError, match=r"lacks the time zone .*BI_TIMEZONE") as caught:
            check_timezone(meg, name, context="here")
        assert meg.has_timezone("UTC")
    assert caught.value.actual == name
    assert "tzdata-legacy" in caught.value.hint
    assert not caught.value.retryable


def test_plan_refuses_timezone_unknown_to_server(
    zoneless: DatabaseServers, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan task fails at once, its error names the zone, and nothing is planned."""
    set_connections(monkeypatch, zoneless)
    for name, value in {"BI_AGGREGATE": "1", "MEG_REGIONS": "eu", "BI_TIMEZONE": MISSING_ZONE}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AirflowFailException, match=f"lacks the time zone {MISSING_ZONE}"):
        plan(plan_context(utc(2026, 11, 1)))
    assert store.loads.count_documents({}) == 0


@pytest.mark.usefixtures("store")
def test_doctor_names_timezone_unknown_to_server(zoneless: DatabaseServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor fails the zone that the server lacks, and passes another one."""
    set_connections(monkeypatch, zoneless)
    checks: dict[str, Any] = {}
    for name in (MISSING_ZONE, "Europe/Dublin"):
        [checks[name]] = [finding for finding in run_checks(BI_TIMEZONE=name) if finding.check == "time zone"]
    assert checks[MISSING_ZONE].status is Status.FAILED
    assert MISSING_ZONE in checks[MISSING_ZONE].message
    assert checks["Europe/Dublin"].status is Status.OK


@pytest.fixture(scope="module")
def replica(servers: DatabaseServers) -> Iterator[DatabaseServers]:
    """The databases, with a standby that cancels conflicting queries at once."""
    with standby(stack_folder("test-standby"), servers, max_standby_streaming_delay="0") as databases:
        yield databases


def wait_for_replay(servers: DatabaseServers, replica: DatabaseServers) -> None:
    """Wait until the standby has replayed all that the primary has written so far."""
    with servers.postgres.connect() as primary, replica.postgres.connect() as secondary:
        row = primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        wait_until(
            lambda: secondary.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone() == (True,)
        )


def conflict(servers: DatabaseServers) -> None:
    """Remove rows on the primary that a snapshot on the standby may still see."""
    with servers.postgres.connect("meg_eu") as primary:
        primary.execute("DELETE FROM megforms_observation")
        primary.execute("VACUUM megforms_observation")


@pytest.mark.parametrize("sql", ["SELECT pg_sleep(30)", "SELECT generate_series(1, 100000)"], ids=["active", "idle"])
def test_recovery_conflict_is_retryable(
    servers: DatabaseServers,
    replica: DatabaseServers,
    meg_factory: MegFactory,
    monkeypatch: pytest.MonkeyPatch,
    sql: str,
) -> None:
    """VACUUM on the primary ends a query on the standby while it runs, and its session between two fetches."""
    with servers.postgres.connect("meg_eu") as primary:  # or autovacuum may conflict before the test does
        primary.execute("ALTER TABLE megforms_observation SET (autovacuum_enabled = off)")
    meg_factory.bulk_forms(100)
    set_connections(monkeypatch, replica)
    wait_for_replay(servers, replica)  # the tables were truncated, whose replay ends queries too
    with (
        open_meg("eu", application_name="conflict") as meg,
        pytest.raises(SourceUnavailableError, match="conflict with recovery on this standby") as caught,
    ):
        read_during_conflict(meg, servers, sql)
    assert "conflict with recovery" in caught.value.actual
    assert "hot_standby_feedback" in caught.value.hint
    assert "max_standby_streaming_delay" in caught.value.hint
    assert caught.value.retryable


def read_during_conflict(meg: MegReader, servers: DatabaseServers, sql: str) -> None:
    vacuum = threading.Timer(0.5, conflict, [servers])
    vacuum.start()
    try:
        with meg.query(sql, {}) as result:
            next(result.batches)
            time.sleep(2)
            for _ in result.batches:
                pass
    finally:
        vacuum.join()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"max_standby_streaming_delay": "0"}, Status.WARNING),
        ({"max_standby_streaming_delay": "299s"}, Status.WARNING),
        ({"max_standby_streaming_delay": "5min"}, Status.OK),
        ({"max_standby_streaming_delay": "-1"}, Status.OK),
        ({"max_standby_streaming_delay": "0", "hot_standby_feedback": "on"}, Status.OK),
    ],
    ids=str,
)
def test_doctor_checks_standby_settings(
    replica: DatabaseServers, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], status: Status
) -> None:
    """A standby that cancels queries at once is a warning, with the two settings that let them finish."""
    set_connections(monkeypatch, replica)
    with replica.postgres.connect() as admin:
        for name, value in {"hot_standby_feedback": "off", **settings}.items():
            admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        admin.execute("SELECT pg_reload_conf()")
        wait_until(
            lambda: all(admin.execute(f"SHOW {name}").fetchone() == (value,) for name, value in settings.items())
        )
        [finding] = [finding for finding in run_checks() if finding.check == "standby"]
        admin.execute("ALTER SYSTEM SET max_standby_streaming_delay = '0'")
        admin.execute("ALTER SYSTEM RESET hot_standby_feedback")
        admin.execute("SELECT pg_reload_conf()")
    assert finding.status is status
    assert "hot_standby_feedback" in f"{finding.message} {finding.actual}"
    assert ("hot_standby_feedback = on" in finding.hint) is (status is Status.WARNING)


@pytest.mark.usefixtures("store")
def test_doctor_skips_standby_check_on_primary(servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a primary these settings mean nothing."""
    set_connections(monkeypatch, servers)
    assert [finding for finding in run_checks() if finding.check == "standby"] == []
