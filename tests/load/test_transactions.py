"""Tests slices larger than one transaction, and transactions that MongoDB rejects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymongo.client_session import ClientSession

from bi_ops.errors import MongoUnavailableError, PartialPublishError, StagingError
from bi_ops.load import publish as module
from bi_ops.load.publish import publish
from bi_ops.mongo.mongo_error_rules import translate_pymongo_errors
from bi_ops.mongo.store import DagRunRef, Store
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.load_helpers import SUBMISSIONS, live_documents, monthly_slice, stage_documents

LATER_RUN = DagRunRef("bi_monthly", "manual__2026-11-20")
TOO_LARGE_FOR_CACHE, OVER_LIFETIME = 388, 290


def values(store: Store) -> set[int]:
    return {document["submissions"] for document in live_documents(store, monthly_slice())}


def ledger(store: Store) -> dict[str, Any]:
    row = store.ledger.find_one({"_id": monthly_slice().ledger_id})
    assert row
    return row


@contextmanager
def failing(servers: DatabaseServers, times: int, **data: Any) -> Iterator[None]:
    with servers.mongo_admin.client() as admin:
        mode = {"times": times}
        admin.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
        try:
            yield
        finally:
            admin.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@contextmanager
def lifetime_limit(servers: DatabaseServers, seconds: int) -> Iterator[None]:
    with servers.mongo_admin.client() as admin:
        name = "transactionLifetimeLimitSeconds"
        before = admin.admin.command({"getParameter": 1, name: 1})[name]
        admin.admin.command({"setParameter": 1, name: seconds})
        try:
            yield
        finally:
            admin.admin.command({"setParameter": 1, name: before})


@pytest.mark.parametrize("code", [TOO_LARGE_FOR_CACHE, OVER_LIFETIME])
def test_transaction_too_large_is_halved(store: Store, servers: DatabaseServers, code: int) -> None:
    """The slice is published in several transactions, and the ledger says so."""
    publish(store, stage_documents(store, monthly_slice(), dict.fromkeys(range(400), 1)), max_shrink=0.5)
    assert ledger(store)["transactions"] == 1
    load = stage_documents(store, monthly_slice(), dict.fromkeys(range(400), 2), LATER_RUN)
    labels = ["TransientTransactionError"] if code == OVER_LIFETIME else []
    namespace = f"{LIVE_DATABASE}.{SUBMISSIONS.name}"
    data = {"errorCode": code, "errorLabels": labels, "failCommands": ["update"], "namespace": namespace}
    with failing(servers, 3, **data):
        publish(store, load, max_shrink=0.5, max_transaction_documents=800)
    assert values(store) == {2}
    assert ledger(store)["publishing"] is None
    assert ledger(store)["transactions"] > 1


def test_transaction_over_lifetime_is_halved(store: Store, servers: DatabaseServers) -> None:
    """MongoDB ends each transaction after a second, and 100,000 documents take longer."""
    with lifetime_limit(servers, 1):
        load = stage_documents(store, monthly_slice(), dict.fromkeys(range(100_000), 1), form_name="x" * 600)
        publish(store, load, max_shrink=0.5)
    assert len(live_documents(store, monthly_slice())) == 100_000
    assert ledger(store)["transactions"] > 1


def test_single_failure_is_retried_whole(store: Store, servers: DatabaseServers) -> None:
    """After a short failure the slice is still published in one transaction."""
    load = stage_documents(store, monthly_slice(), dict.fromkeys(range(400), 2))
    data = {"errorCode": OVER_LIFETIME, "errorLabels": ["TransientTransactionError"], "failCommands": ["insert"]}
    with failing(servers, 1, namespace=f"{LIVE_DATABASE}.{SUBMISSIONS.name}", **data):
        publish(store, load, max_shrink=0.5)
    assert ledger(store)["transactions"] == 1


@pytest.mark.parametrize(
    ("code", "cause"), [(TOO_LARGE_FOR_CACHE, "cache"), (OVER_LIFETIME, "transactionLifetimeLimitSeconds")]
)
def test_oversized_document_is_reported(store: Store, servers: DatabaseServers, code: int, cause: str) -> None:
    load = stage_documents(store, monthly_slice(), {1: 1, 2: 1})
    data = {"errorCode": code, "failCommands": ["insert"], "namespace": f"{LIVE_DATABASE}.{SUBMISSIONS.name}"}
    with failing(servers, 50, **data), pytest.raises(MongoUnavailableError) as caught, translate_pymongo_errors("here"):
        publish(store, load, max_shrink=0.5)
    assert cause in caught.value.message
    assert cause in caught.value.hint
    assert "full error" not in caught.value.actual
    assert live_documents(store, monthly_slice()) == []


def test_document_over_lifetime_is_reported(store: Store, servers: DatabaseServers) -> None:
    """MongoDB itself ends the transaction while an insert takes longer than the limit, even of one document."""
    load = stage_documents(store, monthly_slice(), {1: 1})
    namespace = f"{LIVE_DATABASE}.{SUBMISSIONS.name}"
    data = {"blockConnection": True, "blockTimeMS": 3000, "failCommands": ["insert"], "namespace": namespace}
    with (
        lifetime_limit(servers, 1),
        failing(servers, 50, **data),
        pytest.raises(MongoUnavailableError) as caught,
        translate_pymongo_errors("here"),
    ):
        publish(store, load, max_shrink=0.5)
    assert "transactionLifetimeLimitSeconds" in caught.value.message
    assert live_documents(store, monthly_slice()) == []


def test_partial_publish_names_its_cause(
    store: Store, servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a range never fits, the error names the cause and the documents that are live."""
    publish(store, stage_documents(store, monthly_slice(), dict.fromkeys(range(4), 1)), max_shrink=0.5)
    load = stage_documents(store, monthly_slice(), dict.fromkeys(range(4), 2), LATER_RUN)
    original, committed = module.in_transaction, 0

    def run(target: Store, write: Callable[[ClientSession], Any]) -> Any:
        nonlocal committed
        if not committed:
            committed += 1
            return original(target, write)
        data = {
            "errorCode": OVER_LIFETIME,
            "failCommands": ["update"],
            "namespace": f"{LIVE_DATABASE}.{SUBMISSIONS.name}",
        }
        with failing(servers, 10, **data):
            return original(target, write)

    monkeypatch.setattr(module, "in_transaction", run)
    with pytest.raises(PartialPublishError, match="transactionLifetimeLimitSeconds") as caught:
        publish(store, load, max_shrink=0.5, max_transaction_documents=2)
    assert "2 documents of this load" in caught.value.actual
    assert [document["submissions"] for document in live_documents(store, monthly_slice())] == [2, 2, 1, 1]


def lose_bucket_after(monkeypatch: pytest.MonkeyPatch, store: Store, transactions: int) -> None:
    """Remove all staged data after this number of committed transactions."""
    original, committed = module.in_transaction, 0

    def run(target: Store, write: Callable[[ClientSession], Any]) -> Any:
        nonlocal committed
        if committed == transactions:
            store.staging_collection(SUBMISSIONS.name).delete_many({})
        result = original(target, write)
        committed += 1
        return result

    monkeypatch.setattr(module, "in_transaction", run)


def test_partial_publish_names_live_documents(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, stage_documents(store, monthly_slice(), dict.fromkeys(range(1000), 1)), max_shrink=0.5)
    load = stage_documents(store, monthly_slice(), dict.fromkeys(range(1000), 2), LATER_RUN)
    with monkeypatch.context() as patch:
        lose_bucket_after(patch, store, 3)
        with pytest.raises(PartialPublishError, match="partly new and partly old") as caught:
            publish(store, load, max_shrink=0.5, max_transaction_documents=100)
    assert caught.value.retryable
    submissions = [document["submissions"] for document in live_documents(store, monthly_slice())]
    assert submissions == [2] * 300 + [1] * 700
    assert "300 documents of this load" in caught.value.actual
    progress = ledger(store)["publishing"]
    assert (progress["load_id"], progress["documents"], progress["of"]) == (load.id, 300, 1000)
    assert ledger(store)["run_id"] != LATER_RUN.run_id

    with pytest.raises(StagingError, match=f"documents of run {LATER_RUN.run_id}"):
        publish(store, load, max_shrink=0.5)
    new_load = stage_documents(store, monthly_slice(), dict.fromkeys(range(1000), 2), LATER_RUN)
    publish(store, new_load, max_shrink=0.5, max_transaction_documents=100)
    assert values(store) == {2}
    assert ledger(store)["publishing"] is None


def test_failure_between_transactions_retries(store: Store, servers: DatabaseServers) -> None:
    """MongoDB fails after the first of several transactions; the retry completes the slice."""
    publish(store, stage_documents(store, monthly_slice(), dict.fromkeys(range(1000), 1)), max_shrink=0.5)
    load = stage_documents(store, monthly_slice(), dict.fromkeys(range(1000), 2), LATER_RUN)
    original, calls = module.in_transaction, 0

    def fail_second(target: Store, write: Callable[[ClientSession], Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            data = {"errorCode": 8, "failCommands": ["update"], "namespace": f"{LIVE_DATABASE}.{SUBMISSIONS.name}"}
            with failing(servers, 1, **data):
                return original(target, write)
        return original(target, write)

    module.in_transaction = fail_second
    try:
        with pytest.raises(PartialPublishError) as caught, translate_pymongo_errors("here"):
            publish(store, load, max_shrink=0.5, max_transaction_documents=100)
    finally:
        module.in_transaction = original
    assert caught.value.retryable
    publish(store, load, max_shrink=0.5, max_transaction_documents=100)
    assert values(store) == {2}
    assert ledger(store)["publishing"] is None
