"""A task's process dies, hard, between any two commands, while a reader looks on; then the task is tried again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bi_ops.source import Meg
from bi_ops.store import Store
from dev.stack import Databases
from tests.conftest import ROOT
from tests.loads import RUN, live_bytes, load_slice, month, stage_slice
from tests.megs import MegRows

FORMS = 2_500
"""Enough for two batches of writes in one transaction."""


class Reader:
    """Reads the live slice over and over, and counts what it saw: the old one, the new one, or something wrong.

    It reads snapshots: MongoDB lets any other cursor run on into what is committed while it is being read.
    """

    def __init__(self, store: Store, old: int, new: int) -> None:
        self._store = store
        self._whole = {old, new}
        self._stop = threading.Event()
        self.reads = 0
        self.wrong: list[tuple[int, set[int]]] = []

    def read(self) -> None:
        collection = self._store.live["monthly_submissions"]
        while not self._stop.is_set():
            with self._store.client.start_session(snapshot=True) as session:
                found = list(collection.find({"region": "eu", "period": "2026-10"}, session=session))
            values = {document["submissions"] for document in found}
            self.reads += 1
            if len(found) != FORMS or len(values) != 1 or not values <= self._whole:
                self.wrong.append((len(found), values))

    @contextmanager
    def reading(self) -> Iterator[None]:
        thread = threading.Thread(target=self.read)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def run_loader(servers: Databases, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **servers.connections({"eu": "meg_eu"}), "PYTHONPATH": "plugins"}
    command = [sys.executable, "-m", "tests.loader", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def two_submissions_each(rows: MegRows) -> None:
    rows.connection.execute(
        "INSERT INTO megforms_observation"
        " SELECT id + 10000000, session_id, form_id, created_at FROM megforms_observation"
    )


@pytest.fixture
def published(store: Store, meg: Meg, rows: MegRows) -> None:
    """A month of one submission a form is live, and MEG now holds two."""
    rows.many_forms(FORMS)
    load_slice(store, meg, month())
    two_submissions_each(rows)


@pytest.mark.usefixtures("published")
def test_killed_anywhere_in_stage(servers: Databases, store: Store, meg: Meg) -> None:
    reader = Reader(store, 1, 2)
    with reader.reading():
        for kill_at in (1, 4, 9, 260):
            died = run_loader(servers, "stage", kill_at, "before", 100_000)
            assert died.returncode == -signal.SIGKILL, died.stderr
        staged_again = stage_slice(store, meg, month())
    assert staged_again.documents == store.staged(month(), RUN).count(month().ids) == FORMS
    assert reader.wrong == []
    assert reader.reads > 0
    load_slice(store, meg, month())
    assert len(live_bytes(store, month())) == FORMS


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_anywhere_in_publish(servers: Databases, store: Store, meg: Meg, moment: str) -> None:
    staged = stage_slice(store, meg, month())
    before = live_bytes(store, month())
    reader = Reader(store, 1, 2)
    kills = 0
    with reader.reading():
        while True:
            done = run_loader(servers, "publish", kills + 1, moment, 100_000, staged.documents)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr
            kills += 1
            after = live_bytes(store, month())
            assert len(after) == FORMS
            assert after == before or not set(after.items()) & set(before.items()), "half a slice"
    assert kills >= 8
    assert reader.wrong == []
    assert reader.reads > kills
    assert {document["submissions"] for document in store.live["monthly_submissions"].find()} == {2}
    assert store.ledger.count_documents({"_id": month().ledger_id, "documents": FORMS}) == 1
    print(f"publish killed {kills} times {moment} a command: {reader.reads} reads, {len(reader.wrong)} wrong")
