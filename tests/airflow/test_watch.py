"""Tests the task of bi_watch with a real web server: with and without the connection, and when sending fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from bi_ops.airflow.watch_dag import build_watch_dag
from bi_ops.load.ledger import unpublished
from bi_ops.load.publish import publish
from bi_ops.mongo.store import Store
from dev.embedded_stack import DatabaseServers
from dev.webhook_server import Listener, listening
from tests.load_helpers import monthly_slice, stage_documents
from tests.meg_factory import MegFactory

Watch = Callable[[], Any]
LATE_MONTH = pendulum.now("UTC").start_of("month").subtract(months=2)
"""The month before the last: late on any day."""
NAME = LATE_MONTH.format("YYYY-MM")


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as server:
        yield server


@pytest.fixture
def watch(
    monkeypatch: pytest.MonkeyPatch, servers: DatabaseServers, meg_factory: MegFactory, listener: Listener
) -> Watch:
    """Runs the task for the regions eu and uk, of which uk's MEG is down; BI_AGGREGATE is off."""
    meg_factory.institution(created_at=LATE_MONTH.add(days=3))
    monkeypatch.delenv("BI_AGGREGATE", raising=False)
    monkeypatch.setenv("MEG_REGIONS", "eu,uk")
    monkeypatch.setenv("BI_START_DATE", LATE_MONTH.subtract(months=3).to_date_string())
    for name, value in servers.connections({"eu": "meg_eu", "uk": "no_such_database"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_CONN_BI_NOTIFY", listener.connection())
    return lambda: build_watch_dag(None).get_task("watch").execute({})


def test_lateness_is_sent_once(watch: Watch, listener: Listener, store: Store) -> None:
    """One warning tells what is late, and one message what is published, even while BI_AGGREGATE is off."""
    assert watch()["late"] > 0
    assert watch() == {"late": 0, "published": 0}
    [warning] = listener.messages
    assert warning["type"] == "warning"
    lines = warning["message"].splitlines()
    assert lines[0] == "Not published 24 hours after they were due (BI_DEADLINE_HOURS):"
    assert any(line.startswith(f"- monthly_submissions eu: {NAME}") for line in lines)
    assert lines[-1].endswith("/dags/bi_backfill")
    publish(store, stage_documents(store, monthly_slice(NAME), {}), max_shrink=1)
    assert unpublished(store, [monthly_slice(NAME)]) == []
    assert watch() == {"late": 0, "published": 1}
    assert watch() == {"late": 0, "published": 0}
    success = listener.messages[1]
    assert (success["type"], success["title"]) == ("success", "MEG BI: 1 no longer late")
    assert f"- monthly_submissions eu: {NAME}" in success["message"]
    assert len(listener.messages) == 2


def test_region_starts_bound_lateness(watch: Watch, listener: Listener, store: Store) -> None:
    """A region's start is read once and stored; for one that is down, BI_START_DATE counts and nothing is stored."""
    watch()
    assert [row["_id"] for row in store.region_starts.find()] == ["eu"]
    first = {
        region: min(store.watch.distinct("period", {"job": "monthly_sessions", "region": region}))
        for region in ("eu", "uk")
    }
    assert first == {"eu": NAME, "uk": LATE_MONTH.subtract(months=3).format("YYYY-MM")}
    store.region_starts.update_one({"_id": "eu"}, {"$set": {"starts_at": LATE_MONTH.add(months=1)}})
    watch()
    assert store.watch.count_documents({"region": "eu", "period": NAME}) == 0
    assert len(listener.messages) == 1


def test_watch_without_connection_is_quiet(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without `bi_notify` the task succeeds, stores nothing and says so in its log."""
    monkeypatch.delenv("AIRFLOW_CONN_BI_NOTIFY")
    assert watch() is None
    assert "connection bi_notify not found" in "".join(capfd.readouterr())
    assert store.watch.count_documents({}) == store.region_starts.count_documents({}) == 0


def test_undelivered_lateness_is_sent_again(watch: Watch, listener: Listener, store: Store) -> None:
    """A service that refuses the notification fails the task, which is retried; nothing counts as reported."""
    listener.status = 500
    with pytest.raises(AirflowException, match="was not delivered") as caught:
        watch()
    assert not isinstance(caught.value, AirflowFailException)
    assert store.watch.count_documents({}) == 0
    listener.status = 200
    assert watch()["late"] == store.watch.count_documents({}) > 0
    assert len(listener.messages) == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "names no service"),
        ({"config": "not JSON"}, "names no service"),
        ({"config": [{"url": "json://127.0.0.1"}]}, "names no service"),
        ({"config": {"path": "nonsense://hunter2"}}, "Apprise does not know the URL"),
    ],
)
def test_broken_connection_fails_task(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, store: Store, extra: dict[str, Any], message: str
) -> None:
    """A connection that cannot be used fails the task without a retry, and shows no secret."""
    monkeypatch.setenv("AIRFLOW_CONN_BI_NOTIFY", json.dumps({"conn_type": "apprise", "extra": extra}))
    with pytest.raises(AirflowFailException, match=message) as caught:
        watch()
    assert "hunter2" not in str(caught.value)
    assert store.watch.count_documents({}) == 0


def test_services_are_read_as_the_form_stores_them(
    watch: Watch, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's form stores the services as text, and may list several."""
    config = json.dumps([{"path": f"json://127.0.0.1:{listener.port}", "tag": tag} for tag in ("a", "b")])
    monkeypatch.setenv("AIRFLOW_CONN_BI_NOTIFY", json.dumps({"conn_type": "apprise", "extra": {"config": config}}))
    watch()
    assert len(listener.messages) == 2
