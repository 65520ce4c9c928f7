"""Where the reports read: the connection `bi_reports`, an account that may only read, or else the pipeline's own."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bi_ops.connections import MONGO, REPORTS, has_connection, open_store
from bi_ops.errors import ConnectionSettingsError, MongoRefusedError, MongoUnavailableError
from bi_ops.store import Store
from bi_ops.store_errors import store_errors_told

_AT_ONCE = 4
"""Reports computed at once by one API server, which has other things to do with its threads."""
_PATIENCE = 10
"""How long a report waits for its turn, in s."""


class _Kept:
    """One connection for the whole process, since opening one costs more than a report; the driver mends it itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[Store, str] | None = None
        self._open = ExitStack()
        self._retired = ExitStack()
        atexit.register(self._close)  # before the driver's own threads end, without which it cannot close

    def get(self) -> tuple[Store, str]:
        with self._lock:
            if self._kept is None:
                name = REPORTS if has_connection(REPORTS) else MONGO
                store = self._open.enter_context(open_store("the reports", name, serverSelectionTimeoutMS=5_000))
                self._kept = store, name
            return self._kept

    def forget(self, store: Store) -> None:
        """Open it anew next time. Others may still be reading from it, so it is closed when the next is forgotten."""
        with self._lock:
            if self._kept and self._kept[0] is store:
                self._retired.close()
                self._kept, self._open, self._retired = None, ExitStack(), self._open

    def _close(self) -> None:
        self._open.close()
        self._retired.close()


_KEPT = _Kept()
_TURNS = threading.BoundedSemaphore(_AT_ONCE)


@contextmanager
def reading() -> Iterator[Store]:
    """The databases, to read.

    Raises:
        MongoUnavailableError: They cannot be reached, or too many are reading.
        ConnectionSettingsError: The connection cannot be used; once it is mended, the next reader finds it so.
        MongoRefusedError: The account may not read.
    """
    if not _TURNS.acquire(timeout=_PATIENCE):
        raise MongoUnavailableError(
            "too many reports are being computed", where="the reports", cure="Wait a little, and load the page again."
        )
    try:
        store, name = _KEPT.get()
        try:
            with store_errors_told(f"the reports, connection {name}"):
                yield store
        except (ConnectionSettingsError, MongoRefusedError):
            _KEPT.forget(store)
            raise
    finally:
        _TURNS.release()
