"""Tests the task of bi_digest: what it sends to whom, once or again, and why it is skipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSkipException

from bi_ops.airflow.digest_dag import build_digest_dag
from bi_ops.mongo.store import Store
from dev.embedded_stack import DatabaseServers
from dev.webhook_server import Listener, listening
from tests.load_helpers import publish_empty

Digest = Callable[..., Any]
JOBS = ("monthly_submissions", "monthly_sessions", "top_users")
LAST_MONTH = pendulum.now("UTC").start_of("month").subtract(months=1)
NAME = LAST_MONTH.format("YYYY-MM")
TITLE = f"MEG usage in {LAST_MONTH.format('MMMM YYYY')}"


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as server:
        yield server


@pytest.fixture
def digest(monkeypatch: pytest.MonkeyPatch, servers: DatabaseServers, listener: Listener) -> Digest:
    """Runs the task for the regions eu and uk, as an asset starts it unless `run_type` says otherwise."""
    monkeypatch.setenv("BI_AGGREGATE", "1")
    monkeypatch.setenv("MEG_REGIONS", "eu,uk")
    monkeypatch.setenv("BI_START_DATE", LAST_MONTH.subtract(months=3).to_date_string())
    for name, value in servers.connections({}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_CONN_BI_DIGEST", listener.connection())

    def run(run_type: str = "asset_triggered", run_id: str = "run", **conf: Any) -> Any:
        now = pendulum.now("UTC")
        dates = {"run_after": now, "logical_date": None, "data_interval_start": None, "data_interval_end": None}
        dag_run = SimpleNamespace(run_type=run_type, conf=conf, **dates)
        return build_digest_dag(None).get_task("send").execute({"dag_run": dag_run, "run_id": run_id})

    return run


def publish_month(store: Store, name: str = NAME, regions: tuple[str, ...] = ("eu", "uk")) -> None:
    for region in regions:
        for job in JOBS:
            publish_empty(store, job, region, name)


def test_month_is_sent_once(digest: Digest, listener: Listener, store: Store) -> None:
    """The month is sent when the last region has published it, and never again by itself; by hand, each time."""
    publish_month(store, regions=("eu",))
    publish_empty(store, "monthly_submissions", "uk", NAME)
    with pytest.raises(AirflowSkipException, match="not every region has published this month"):
        digest()
    assert listener.messages == []
    assert store.digest.count_documents({}) == 0
    publish_month(store)
    assert digest() == NAME
    with pytest.raises(AirflowSkipException, match="the digest of this month was sent"):
        digest(run_id="later")
    [message] = listener.messages
    assert (message["title"], message["type"]) == (TITLE, "info")
    assert message["message"].startswith("Submissions: 0")
    assert message["message"].endswith("/bi-reports/#overview")
    assert digest("manual") == digest("manual") == NAME
    assert len(listener.messages) == 3
    assert store.digest.distinct("_id") == [NAME]


def test_skip_log_says_what_is_missing(
    digest: Digest, store: Store, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of a skipped run names what is missing; without the connection it is one line."""
    publish_month(store, regions=("eu",))
    publish_empty(store, "monthly_submissions", "uk", NAME)
    with pytest.raises(AirflowSkipException):
        digest()
    assert "Actual: missing: monthly_sessions uk, top_users uk" in capfd.readouterr().out
    monkeypatch.delenv("AIRFLOW_CONN_BI_DIGEST")
    for run_type in ("asset_triggered", "manual"):
        with pytest.raises(AirflowSkipException, match="connection bi_digest not found"):
            digest(run_type)
        assert capfd.readouterr().out.count("Digest disabled") == 1


def test_digest_by_hand_names_lacking_region(digest: Digest, listener: Listener, store: Store) -> None:
    """While a region is down, the month is sent by hand without it; empty parameters mean the newest complete one."""
    earlier = LAST_MONTH.subtract(months=1).format("YYYY-MM")
    publish_month(store, earlier)
    publish_month(store, regions=("eu",))
    assert digest("manual") == digest("manual", period=None) == earlier
    assert digest("manual", period=NAME) == NAME
    assert [message["title"] for message in listener.messages[1:]] == [
        f"MEG usage in {LAST_MONTH.subtract(months=1).format('MMMM YYYY')}",
        f"{TITLE}, without uk",
    ]
    assert "Not published yet, and not in these figures: uk." in listener.messages[2]["message"]


def test_undelivered_digest_is_sent_again(
    digest: Digest, listener: Listener, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that refuses fails the task, which is retried; those that took the digest do not get it again."""
    publish_month(store)
    with listening() as other:
        config = [{"path": f"json://127.0.0.1:{server.port}"} for server in (listener, other)]
        monkeypatch.setenv("AIRFLOW_CONN_BI_DIGEST", json.dumps({"conn_type": "apprise", "extra": {"config": config}}))
        other.status = 500
        for _ in range(2):
            with pytest.raises(AirflowException, match="was not delivered") as caught:
                digest()
            assert not isinstance(caught.value, AirflowFailException)
        assert (len(listener.messages), len(other.messages)) == (1, 0)
        other.status = 200
        assert digest(run_id="later") == NAME
        assert (len(listener.messages), len(other.messages)) == (1, 1)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"period": "2026-13"}, "period: a month such as"),
        ({"period": 5}, "period: a month such as"),
        ({"period": pendulum.now("UTC").format("YYYY-MM")}, "period: a period that has ended"),
        ({"periods": "2026-10"}, "did you mean period"),
    ],
)
def test_invalid_digest_parameters_fail(
    digest: Digest, capfd: pytest.CaptureFixture[str], conf: dict[str, Any], message: str
) -> None:
    """Invalid parameters fail the task without a retry, and the log says what is allowed."""
    with pytest.raises(AirflowFailException, match="invalid run parameters"):
        digest("manual", **conf)
    assert message in capfd.readouterr().out


def test_closed_gate_skips_digest(
    digest: Digest, listener: Listener, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent while BI_AGGREGATE is off."""
    publish_month(store)
    monkeypatch.setenv("BI_AGGREGATE", "0")
    with pytest.raises(AirflowSkipException, match="BI_AGGREGATE is off"):
        digest("manual")
    assert listener.messages == []
