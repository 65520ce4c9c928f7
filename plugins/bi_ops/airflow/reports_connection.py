"""The reports' connection: `bi_reports` (a read-only account) if it exists, else the pipeline's `bi_mongo`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bi_ops.airflow.connections import MONGO_CONN_ID, REPORTS_CONN_ID, has_connection, mongo_client_settings, open_store
from bi_ops.mongo.client_settings import MongoClientSettings
from bi_ops.mongo.store import Store


def reports_conn_id() -> str:
    """The connection's id; blocks while Airflow's secrets backends answer."""
    return REPORTS_CONN_ID if has_connection(REPORTS_CONN_ID) else MONGO_CONN_ID


def reports_client_settings() -> MongoClientSettings:
    """The connection's settings for the page; blocks while Airflow's secrets backends answer.

    Raises:
        ConnectionConfigError: The connection cannot be used.
    """
    return mongo_client_settings(reports_conn_id())


@contextmanager
def open_reports_store() -> Iterator[Store]:
    """Open the databases with a blocking client, for a command and never for the page.

    Raises:
        MongoUnavailableError: They cannot be reached.
        ConnectionConfigError: The connection cannot be used.
        MongoConfigurationError: The account may not read.
    """
    with open_store("the reports", reports_conn_id(), serverSelectionTimeoutMS=5_000) as store:
        yield store
