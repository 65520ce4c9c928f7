"""MEG and MongoDB as Airflow's connections describe them. A secret is in a connection and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from airflow.providers.common.compat.sdk import AirflowConfigException, AirflowNotFoundException
from airflow.providers.mongo.hooks.mongo import MongoHook
from airflow.providers.postgres.hooks.postgres import PostgresHook

from bi_ops.errors import ConnectionSettingsError
from bi_ops.source import Meg
from bi_ops.store import Store, mongo_errors_told

MONGO = "bi_mongo"
DEFAULT_DATABASE = "bi"


def open_meg(region: str, *, reader: str) -> Meg:
    """The MEG of a region, through the connection `meg_<region>`; connects at the first query.

    Args:
        region: The region.
        reader: Who reads, for MEG's administrators to see.
    """

    def connect() -> psycopg.Connection[Any]:
        with _bad_connection_told(f"meg_{region}", "postgres"):
            return cast("psycopg.Connection[Any]", PostgresHook(f"meg_{region}").get_conn())

    return Meg(region, connect, reader=reader)


@contextmanager
def open_store() -> Iterator[Store]:
    """The databases of the connection `bi_mongo`, whose schema names the live one.

    Raises:
        ConnectionSettingsError: There is no such connection, or it asks for what is refused.
        MongoUnavailableError: MongoDB failed while they were open.
    """
    with _bad_connection_told(MONGO, "mongo"):
        hook = MongoHook(MONGO)
    if hook.allow_insecure:
        raise ConnectionSettingsError(
            "allow_insecure is refused: with it, the login and the data may travel in plain text",
            where=f"connection {MONGO}",
            expected='"tls": true, and "tlsCAFile" where the authority is one of your own',
            found='"allow_insecure": true',
            cure="Take allow_insecure out of the connection's extra.",
        )
    with hook, mongo_errors_told(MONGO):
        yield Store(hook.get_conn(), hook.connection.schema or DEFAULT_DATABASE)


@contextmanager
def _bad_connection_told(name: str, kind: str) -> Iterator[None]:
    try:
        yield
    except AirflowConfigException as error:
        raise ConnectionSettingsError(
            "Airflow cannot use this connection",
            where=f"connection {name}",
            expected=f"a connection of type {kind}, with host, login and password in fields of their own",
            found=str(error),
            cure="Mend it under Admin, Connections, or wherever it is kept.",
        ) from None
    except AirflowNotFoundException:
        raise ConnectionSettingsError(
            "Airflow has no such connection",
            where=f"connection {name}",
            expected=f"a connection of type {kind}",
            found="none",
            cure=f"Add it under Admin, Connections, in a secrets backend, or as AIRFLOW_CONN_{name.upper()}.",
        ) from None
