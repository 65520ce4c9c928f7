"""Runs MongoDB transactions: retries transient failures, and gives up on a transaction too large to commit."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pymongo import ReadPreference
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from bi_ops.mongo.mongo_error_rules import error_code, error_text
from bi_ops.mongo.store import Store

Result = TypeVar("Result")

TRANSACTION_OPTIONS: dict[str, Any] = {
    "read_concern": ReadConcern("snapshot"),
    "write_concern": WriteConcern("majority"),
    "read_preference": ReadPreference.PRIMARY,
}
"""The read and write options of every transaction, whatever the connection's options."""
_TOO_LARGE_FOR_CACHE, _OVER_LIFETIME, _NO_SUCH_TRANSACTION = 388, 290, 251
_SIZE_ERRORS = (_TOO_LARGE_FOR_CACHE, _OVER_LIFETIME, _NO_SUCH_TRANSACTION)
"""MongoDB's codes for a transaction that exceeds the cache or `transactionLifetimeLimitSeconds`."""
_MAX_ATTEMPTS = 3
"""Failures before a transaction counts as too large: a server that is frozen or short of cache may recover."""


class TransactionTooLargeError(Exception):
    """A transaction has failed repeatedly because of its size.

    Attributes:
        cause: MongoDB's error.
    """

    def __init__(self, cause: OperationFailure) -> None:
        super().__init__(str(cause))
        self.cause = cause


def in_transaction(store: Store, write: Callable[[ClientSession], Result]) -> Result:
    """Run `write` in a transaction, and return what it returns.

    It reads a snapshot from the primary and is acknowledged by a majority, whatever the connection's options.

    Raises:
        TransactionTooLargeError: It exceeds MongoDB's cache or time limit.
        PyMongoError: It failed for another reason, for longer than the driver retries.
    """
    attempts = _Attempts(write)
    while True:
        with store.client.start_session() as session:
            try:
                result: Result = session.with_transaction(attempts, **TRANSACTION_OPTIONS)
                return result
            except PyMongoError as error:
                attempts.record_commit_failure(error)
                attempts.check_size(at_most=2)  # the driver gives up after two minutes, which two attempts may take
                if error_code(error) not in (_TOO_LARGE_FOR_CACHE, _OVER_LIFETIME):
                    raise
        time.sleep(1)


class _Attempts(Generic[Result]):
    """The attempts at one transaction; an attempt leaves nothing behind but the reason for its failure."""

    def __init__(self, write: Callable[[ClientSession], Result]) -> None:
        self._write = write
        self._failures: list[tuple[int | None, str]] = []
        self._returned = False

    def __call__(self, session: ClientSession) -> Result:
        if self._returned:
            self._failures.append((_OVER_LIFETIME, "the transaction was aborted before its commit"))
        if self._failures:
            self.check_size(at_most=_MAX_ATTEMPTS)
            gc.collect()
        self._returned = False
        try:
            result = self._write(session)
        except PyMongoError as error:
            if error_code(error) in _SIZE_ERRORS:
                self._failures.append((error_code(error), error_text(error)))
            traceback.clear_frames(error.__traceback__)  # the driver keeps the error, whose frames hold the documents
            raise
        self._returned = True
        return result

    def record_commit_failure(self, error: PyMongoError) -> None:
        """Record why a commit failed; it may have succeeded all the same, and writing the same again does no harm."""
        if self._returned and error_code(error) in _SIZE_ERRORS:
            self._failures.append((error_code(error), error_text(error)))
            self._returned = False

    def check_size(self, *, at_most: int) -> None:
        """Give up if the transaction has failed `at_most` times because of its size."""
        if len(self._failures) >= at_most:
            raise TransactionTooLargeError(self._cause()) from None

    def _cause(self) -> OperationFailure:
        """The cause of the failures: the cache if MongoDB reported it once, else the time limit.

        After MongoDB ends a transaction at its time limit, the next command reports only that there is no transaction.
        """
        for code in (_TOO_LARGE_FOR_CACHE, _OVER_LIFETIME):
            if texts := [text for failure, text in self._failures if failure == code]:
                return OperationFailure(texts[-1], code)
        return OperationFailure(self._failures[-1][1], _OVER_LIFETIME)
