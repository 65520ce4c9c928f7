"""Opens MEG and MongoDB from Airflow's connections, the only place for secrets, and enforces TLS.

A connection to another machine without TLS or without verification of the certificate is refused before it is opened.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import certifi
import psycopg
from airflow.exceptions import AirflowConfigException
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from airflow.providers.mongo.hooks.mongo import MongoHook
from airflow.providers.postgres.hooks.postgres import PostgresHook
from pymongo import MongoClient
from pymongo.errors import ConfigurationError, PyMongoError
from pymongo.uri_parser import parse_uri

from bi_ops.airflow.connection_problems import (
    find_database_problem,
    find_field_problem,
    find_value_problem,
    unreadable_value,
)
from bi_ops.errors import ConnectionConfigError
from bi_ops.load.documents import Pseudonymizer
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.client_settings import MongoClientSettings
from bi_ops.mongo.mongo_error_rules import translate_pymongo_errors
from bi_ops.mongo.store import Document, Store
from bi_ops.settings import Settings, to_bool

MONGO_CONN_ID = "bi_mongo"
REPORTS_CONN_ID = "bi_reports"
PSEUDONYMS_CONN_ID = "bi_pseudonyms"
NOTIFY_CONN_ID = "bi_notify"
DIGEST_CONN_ID = "bi_digest"
DEFAULT_DATABASE = "bi"

_POSTGRES_DEFAULTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "client_encoding": "UTF8",
}
"""libpq's parameters unless the connection's extra overrides them: a lost peer is noticed within a minute.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""
_MONGO_DEFAULTS = {"connectTimeoutMS": 10_000, "socketTimeoutMS": 120_000, "appname": "meg-bi"}
"""The driver's options unless the connection's extra overrides them: twice the time limit of a transaction.

https://www.mongodb.com/docs/manual/reference/connection-string-options/
"""
_VERIFYING_SSLMODES = ("verify-ca", "verify-full")
_RESERVED_OPTIONS = {"host", "port", "dbname", "user", "password", "service", "servicefile"}
_LIBPQ = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()} - _RESERVED_OPTIONS
_INSECURE_OPTIONS = ("allow_insecure", "tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames")
_MIN_KEY_LENGTH = 16

T = TypeVar("T")


def open_meg(region: str, *, application_name: str) -> MegReader:
    """A reader of a region's MEG, through the connection `meg_<region>`; it connects at the first query.

    Args:
        region: The region.
        application_name: The name of the reader, which MEG's administrators see.
    """

    def connect() -> psycopg.Connection[Any]:
        name = f"meg_{region}"
        parameters = _postgres_parameters(name, _read(name, "postgres", PostgresHook))
        try:
            return psycopg.connect(**parameters)  # the hook's own uses psycopg 2 with SQLAlchemy 1.4
        except psycopg.ProgrammingError as error:
            raise ConnectionConfigError(
                "libpq cannot use this connection",
                context=f"connection {name}",
                expected="libpq's parameters in the extra",
                actual=str(error).strip(),
                hint="Correct the connection's extra.",
            ) from None

    return MegReader(region, connect, application_name=application_name)


@contextmanager
def open_store(context: str, conn_id: str = MONGO_CONN_ID, **options: Any) -> Iterator[Store]:
    """Open the databases of a connection, whose schema names the live one.

    Args:
        context: The purpose, such as a slice, for errors.
        conn_id: The connection's id.
        **options: The driver's options unless the connection's extra overrides them.

    Raises:
        ConnectionConfigError: There is no such connection, or its options are not allowed.
        MongoUnavailableError: MongoDB failed while the databases were open.
        MongoConfigurationError: The account lacks a privilege, or MongoDB does not support an operation.
    """
    hook = _read(conn_id, "mongo", MongoHook)
    database = _database(hook)
    hook.extras = _mongo_extra(hook, {**_MONGO_DEFAULTS, **options})
    with hook, translate_pymongo_errors(f"{context}, connection {conn_id}"):
        yield Store(_client(hook), database)


def mongo_client_settings(conn_id: str, **options: Any) -> MongoClientSettings:
    """A connection for the driver's asynchronous client, validated as by `open_store`.

    Args:
        conn_id: The connection's id.
        **options: The driver's options unless the connection's extra overrides them.

    Raises:
        ConnectionConfigError: There is no such connection, or its options are not allowed.
    """
    hook = _read(conn_id, "mongo", MongoHook)
    database = _database(hook)
    extra = _mongo_extra(hook, {**_MONGO_DEFAULTS, **options})
    return MongoClientSettings(conn_id, hook.uri, extra, database)


def _database(hook: MongoHook) -> str:
    database: str = hook.connection.schema or DEFAULT_DATABASE
    _raise_if(find_database_problem(database, f"connection {hook.mongo_conn_id}"))
    return database


def _client(hook: MongoHook) -> MongoClient[Document]:
    try:
        return hook.get_conn()
    except (TypeError, ValueError, OSError) as error:  # an invalid value, a missing certificate file
        raise ConfigurationError(f"{type(error).__name__}: {error}") from None


def has_connection(name: str) -> bool:
    """Whether there is a connection of this name, even if Airflow cannot read it."""
    try:
        BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return any(value.strip() for _, value in _stored_values(name))
    return True


def load_pseudonymizer(region: str, settings: Settings) -> Pseudonymizer | None:
    """The pseudonymizer of a region, with the key in the connection `bi_pseudonyms`; None if names are kept.

    Raises:
        ConnectionConfigError: Names must be replaced, and the key is missing or too short.
    """
    if region not in settings.pseudonymise:
        return None
    key = _read(PSEUDONYMS_CONN_ID, "generic", BaseHook.get_connection).password or ""
    if len(key) < _MIN_KEY_LENGTH:
        raise ConnectionConfigError(
            "the pseudonym key is missing or too short, and BI_PSEUDONYMISE is on",
            context=f"connection {PSEUDONYMS_CONN_ID}",
            expected=f"a password of at least {_MIN_KEY_LENGTH} characters, for example from openssl rand -hex 32",
            actual=f"{len(key)} characters",
            hint="Set the key as the connection's password, and never change it: another key gives other pseudonyms.",
        )
    return Pseudonymizer(key, region)


def load_notification_services(conn_id: str) -> list[dict[str, Any]]:
    """The services of a connection, each with its Apprise URL as `path` and optionally a `tag`.

    Raises:
        ConnectionConfigError: There is no such connection, or its extra does not hold services.
    """
    config = _read(conn_id, "apprise", BaseHook.get_connection).extra_dejson.get("config")
    if isinstance(config, str):  # as Airflow's form for connections stores it
        with suppress(ValueError):
            config = json.loads(config)
    services = [config] if isinstance(config, dict) else config
    if not services or not isinstance(services, list) or not all(map(_is_service, services)):
        raise ConnectionConfigError(
            "the connection's extra names no service",
            context=f"connection {conn_id}",
            expected='"config" in the extra, an object with the service\'s URL as "path", or a list of these',
            hint='Set {"config": {"path": "<the service\'s URL>"}} as the connection\'s extra.',
        )
    return services


def _is_service(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("path"), str)


def _postgres_parameters(name: str, hook: PostgresHook) -> dict[str, Any]:
    """The parameters for libpq, as the hook builds them."""
    connection = hook.connection
    extra = _postgres_extra(name, connection)
    login, password, port = connection.login, connection.password, connection.port
    if extra.get("iam"):
        login, password, port = hook.get_iam_token(connection)
    fields = {"host": connection.host, "port": port, "dbname": connection.schema, "user": login, "password": password}
    return {**fields, **{option: extra[option] for option in extra.keys() - PostgresHook.ignored_extra_options}}


def _postgres_extra(name: str, connection: Any) -> dict[str, Any]:
    """The parameters in the extra, checked; host, port, database and login may only be in the connection's fields."""
    extra_options = connection.extra_dejson
    allowed = (_LIBPQ | PostgresHook.ignored_extra_options) - {"cursor"}
    unknown = sorted(set(extra_options) - allowed)
    if unknown:
        raise ConnectionConfigError(
            f"unsupported key {unknown[0]} in the connection's extra",
            context=f"connection {name}",
            expected="libpq's parameters; host, port, database and login belong in their own fields",
            actual=", ".join(unknown),
            hint="Correct the connection's extra.",
        )
    extra = {**_POSTGRES_DEFAULTS, **extra_options}
    address = extra.get("hostaddr") or os.environ.get("PGHOSTADDR")
    hosts = [part for value in (connection.host, address) for part in str(value or "").split(",") if part]
    mode = extra.get("sslmode")
    if mode not in _VERIFYING_SSLMODES and not (hosts and all(map(_is_local_host, hosts))):
        raise ConnectionConfigError(
            "TLS with certificate verification is required",
            context=f"connection {name}",
            expected=f'"sslmode" {" or ".join(_VERIFYING_SSLMODES)} in the extra, unless the host is this machine',
            actual=f"{mode or 'no sslmode'} to {', '.join(hosts) or 'no host'}",
            hint='Set {"sslmode": "verify-full"} in the connection\'s extra, with "sslrootcert" for a private '
            "certificate authority.",
        )
    if mode in _VERIFYING_SSLMODES and extra.get("sslrootcert", "system") == "system" and not _has_root_certificate():
        extra["sslrootcert"] = ssl.get_default_verify_paths().cafile or certifi.where()
    return extra


def _has_root_certificate() -> bool:
    """Whether libpq finds root certificates without the connection's extra; psycopg's bundled OpenSSL has none."""
    return bool(os.environ.get("PGSSLROOTCERT")) or Path("~/.postgresql/root.crt").expanduser().exists()


def _mongo_extra(hook: MongoHook, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The driver's options in the extra, checked, with `defaults` for those that are missing."""
    extra_options = hook.connection.extra_dejson
    try:
        parsed = parse_uri(hook.uri.replace("mongodb+srv:", "mongodb:", 1))  # without the DNS look-up of an SRV record
    except (PyMongoError, ValueError) as error:
        raise ConnectionConfigError(
            "invalid MongoDB host",
            context=f"connection {hook.mongo_conn_id}",
            expected='one or more comma-separated hosts; for Atlas the cluster\'s name and "srv": true',
            actual=type(error).__name__,
            hint="Correct the connection's host and port.",
        ) from None
    options = {name.lower(): value for name, value in {**parsed["options"], **extra_options}.items()}
    srv = hook.uri.startswith("mongodb+srv:")
    has_duplicates = len(options) < len(parsed["options"]) + len(extra_options)
    not_allowed = [name for name in _INSECURE_OPTIONS if to_bool(options.get(name))]
    not_allowed += ["srv"] if srv and str(extra_options.get("srv")).lower() == "false" else []
    if has_duplicates:
        raise ConnectionConfigError(
            "duplicate option in the connection's extra",
            context=f"connection {hook.mongo_conn_id}",
            expected="each option once; upper and lower case are the same",
            hint="Remove the duplicate from the connection's extra.",
        )
    if not_allowed:
        raise ConnectionConfigError(
            f"insecure option {not_allowed[0]} in the connection's extra",
            context=f"connection {hook.mongo_conn_id}",
            expected='"tls": true, with "tlsCAFile" for a private certificate authority',
            hint=f"Remove {not_allowed[0]} from the connection's extra.",
        )
    if not to_bool(options.get("tls", options.get("ssl", srv))):
        _require_local_host(hook, [host for host, _ in parsed["nodelist"]], srv=srv)
        # Otherwise the driver connects to the addresses in the server's replica set configuration.
        hook.extras["directConnection"] = True
    return {**{name: value for name, value in defaults.items() if name.lower() not in options}, **hook.extras}


def _require_local_host(hook: MongoHook, hosts: Sequence[str], *, srv: bool) -> None:
    if srv or len(hosts) != 1 or not _is_local_host(hosts[0]):
        raise ConnectionConfigError(
            "TLS is required",
            context=f"connection {hook.mongo_conn_id}",
            expected='"tls": true in the extra, unless the host is this machine',
            actual=f"no TLS to {', '.join(hosts)}",
            hint='Set {"tls": true} in the connection\'s extra, with "tlsCAFile" for a private certificate authority.',
        )


def _is_local_host(host: str) -> bool:
    """Whether a host is this machine: a loopback address or a Unix socket."""
    try:
        return host == "localhost" or host.startswith("/") or ip_address(host).is_loopback
    except ValueError:
        return False


def _read(name: str, kind: str, make: Callable[[str], T]) -> T:
    """Read a connection with `make`, which returns a hook or the connection itself.

    Errors are raised outside of every `except`, so that their context holds no other error, which may show a secret.

    Raises:
        ConnectionConfigError: The connection does not exist, or it cannot be read or used.
    """
    context = f"connection {name}"
    variable = _variable(name)
    # Checked before Airflow reads it, since Airflow logs a value that it cannot read.
    if (os.environ.get(variable) or "").strip():
        _raise_if(find_value_problem(os.environ[variable], kind, f"{context} ({variable})"))
    problem: ConnectionConfigError | None
    try:
        hook = make(name)
        connection: Any = getattr(hook, "connection", hook)
    except AirflowNotFoundException:
        problem = missing_connection(name, kind)
    except (AirflowConfigException, AttributeError, TypeError, ValueError) as error:
        problem = find_field_problem(BaseHook.get_connection(name), kind, context) or _unusable(name, kind, error)
    else:
        problem = find_field_problem(connection, kind, context)
        if not problem and _may_be_truncated(connection):
            problem = _stored_problem(name, kind, readable=True)
        _raise_if(problem)
        return hook
    raise problem


def _may_be_truncated(connection: Any) -> bool:
    """Whether the connection's URI may have ended inside the password, with the rest of it in other fields."""
    no_login = not (connection.login or connection.password)
    return no_login or "@" in f"{connection.schema}{connection.extra}"


def _raise_if(problem: ConnectionConfigError | None) -> None:
    if problem:
        raise problem


def _variable(name: str) -> str:
    return f"AIRFLOW_CONN_{name.upper()}"


def _stored_values(name: str) -> Iterator[tuple[str, str]]:
    """The raw values of a connection, each with its source: the environment or a secrets backend."""
    from airflow.sdk.execution_time.supervisor import (  # noqa: PLC0415 - large, and rarely needed
        ensure_secrets_backend_loaded,
    )

    for backend in ensure_secrets_backend_loaded():
        try:
            value = backend.get_conn_value(conn_id=name)
        except Exception:  # noqa: S112 - any error of a backend; Airflow tries the next one too
            continue
        if isinstance(value, str):
            kind = type(backend).__name__
            yield _variable(name) if kind == "EnvironmentVariablesBackend" else kind, value


def _stored_problem(name: str, kind: str, *, readable: bool = False) -> ConnectionConfigError | None:
    """The problem of a connection's raw value, if it has one."""
    stored = next(_stored_values(name), None)
    if stored is None:
        return None
    source, value = stored
    context = f"connection {name} ({source})"
    return find_value_problem(value, kind, context) or (None if readable else unreadable_value(kind, context))


def _unusable(name: str, kind: str, error: Exception) -> ConnectionConfigError:
    return ConnectionConfigError(
        "Airflow cannot use this connection",
        context=f"connection {name}",
        expected=f"a connection of type {kind}, with host, login and password in their own fields",
        actual=str(error) if isinstance(error, AirflowConfigException) else type(error).__name__,
        hint="Correct it under Admin, Connections, or where it is stored.",
    )


def missing_connection(name: str, kind: str) -> ConnectionConfigError:
    """The error for a connection that Airflow does not find: its value is unreadable, or it does not exist."""
    return _stored_problem(name, kind) or ConnectionConfigError(
        "Airflow has no such connection",
        context=f"connection {name}",
        expected=f"a connection of type {kind}",
        actual="no connection that Airflow can read",
        hint=f"Add it under Admin, Connections, in a secrets backend, or as {_variable(name)}.",
    )
