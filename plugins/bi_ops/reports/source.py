"""Where the reports read: the connection `bi_reports`, an account that may only read, or else the pipeline's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bi_ops.connections import MONGO, REPORTS, has_connection, open_store
from bi_ops.store import Store


def connection_id() -> str:
    """The connection that the reports read through; looking for it blocks."""
    return REPORTS if has_connection(REPORTS) else MONGO


@contextmanager
def reading() -> Iterator[Store]:
    """The databases, to read with a blocking client: for a command, and never for the page.

    Raises:
        MongoUnavailableError: They cannot be reached.
        ConnectionSettingsError: The connection cannot be used.
        MongoRefusedError: The account may not read.
    """
    with open_store("the reports", connection_id(), serverSelectionTimeoutMS=5_000) as store:
        yield store
