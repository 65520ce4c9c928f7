"""Tests which connections are allowed, and the errors for those that are refused or whose server fails."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import psycopg
import pytest
from dns.resolver import NXDOMAIN, LifetimeTimeout
from pymongo import MongoClient
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from bi_ops.airflow.connections import load_pseudonymizer, open_meg, open_store
from bi_ops.errors import (
    BiError,
    ConnectionConfigError,
    MongoConfigurationError,
    MongoUnavailableError,
    SourceUnavailableError,
)
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.mongo_error_rules import translate_pymongo_errors
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings
from dev.embedded_stack import DatabaseServers
from dev.mongo import mongod_path
from dev.processes import Service, child_env, free_port, stop
from tests.conftest import STACK
from tests.load_helpers import load_slice, monthly_slice
from tests.meg_factory import MegFactory

PASSWORD = "hunter2-the-planted-secret"
MONGO = {"conn_type": "mongo", "host": "127.0.0.1", "port": 1, "login": "bi", "password": PASSWORD, "schema": "bi"}
MEG = {"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "login": "bi", "password": PASSWORD, "schema": "meg"}


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets a connection to harmless defaults, changed by the given fields."""

    def set_connection(name: str, **fields: Any) -> None:
        defaults = MONGO if name == "BI_MONGO" else MEG
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({**defaults, **fields}))

    return set_connection


def mongo_error() -> BiError:
    with pytest.raises(BiError) as caught, open_store("monthly_submissions eu 2026-10 stage") as store:
        store.ledger.find_one()
    assert PASSWORD not in str(caught.value)
    return caught.value


def meg_error() -> BiError:
    with (
        pytest.raises(BiError) as caught,
        open_meg("eu", application_name="monthly_submissions eu 2026-10 stage") as meg,
        meg.query("SELECT 1", {}) as result,
    ):
        list(result.batches)
    assert PASSWORD not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "mongo.example.com"}, "TLS is required"),
        ({"host": "10.1.2.3", "extra": {"authSource": "admin"}}, "no TLS to 10.1.2.3"),
        ({"host": "127.0.0.1:27017,10.1.2.3:27017", "port": None}, "TLS is required"),
        ({"host": "10.1.2.3", "extra": {"tls": False}}, "TLS is required"),
        ({"host": "10.1.2.3", "extra": {"tls": "false", "ssl": "true"}}, "TLS is required"),
        ({"host": "localhost.example.com"}, "TLS is required"),
        ({"host": "bi.ab1cd.mongodb.net", "port": None, "extra": {"srv": True, "tls": False}}, "TLS is required"),
        ({"host": "bi.ab1cd.mongodb.net", "port": None, "extra": {"srv": "false"}}, "insecure option srv"),
        ({"host": "10.1.2.3", "extra": {"tls": True, "allow_insecure": True}}, "insecure option allow_insecure"),
        ({"host": "10.1.2.3", "extra": {"ssl": "true", "allow_insecure": "true"}}, "insecure option allow_insecure"),
        ({"extra": {"allow_insecure": True}}, "insecure option allow_insecure"),
        ({"extra": {"tls": True, "tlsAllowInvalidCertificates": True}}, "insecure option tlsallowinvalidcertificates"),
        ({"extra": {"tls": True, "tlsallowinvalidhostnames": "true"}}, "insecure option tlsallowinvalidhostnames"),
        ({"extra": {"tls": True, "tlsInsecure": "True"}}, "insecure option tlsinsecure"),
        ({"schema": "bi?tlsInsecure=true&tls=true"}, "invalid database name: an invalid character"),
        ({"host": "10.1.2.3", "schema": "bi?tls=false", "extra": {"ssl": True}}, "actual: ?"),
        ({"host": "a:b:c"}, "invalid MongoDB host"),
        ({"host": "mongodb://127.0.0.1"}, "invalid MongoDB host"),
        ({"extra": {"TLS": True, "tls": False}}, "duplicate option"),
        ({"extra": {"tls": True, "tlsCAFile": "/nowhere.pem"}}, "driver cannot use this connection"),
        ({"extra": {"nonsense": 1}}, "driver cannot use this connection"),
        ({"extra": {"connectTimeoutMS": "soon"}}, "driver cannot use this connection"),
        ({"conn_type": "postgres"}, "conn_type"),
    ],
)
def test_insecure_mongodb_is_refused(connection: Any, fields: dict[str, Any], message: str) -> None:
    """An insecure MongoDB connection is refused before anything is sent."""
    connection("BI_MONGO", **fields)
    began = time.monotonic()
    error = mongo_error()
    assert isinstance(error, ConnectionConfigError)
    assert message in str(error)
    assert error.hint
    assert not error.retryable
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.10", "[::1]"])
def test_plaintext_to_local_host_is_allowed(connection: Any, host: str) -> None:
    """Plaintext to this machine is allowed."""
    connection("BI_MONGO", host=host, extra={"serverSelectionTimeoutMS": 200})
    error = mongo_error()
    assert isinstance(error, MongoUnavailableError)
    assert "monthly_submissions eu 2026-10 stage, connection bi_mongo: MongoDB cannot be reached" in str(error)
    assert error.retryable


def test_tls_to_other_machine_is_allowed(connection: Any) -> None:
    """TLS to another machine is allowed."""
    connection("BI_MONGO", host="192.0.2.1", extra={"tls": True, "serverSelectionTimeoutMS": 200})
    assert isinstance(mongo_error(), MongoUnavailableError)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "meg.example.com"}, "TLS with certificate verification is required"),
        ({"host": "meg.example.com", "extra": {"sslmode": "prefer"}}, "prefer to meg.example.com"),
        ({"host": "meg.example.com", "extra": {"sslmode": "disable"}}, "TLS with certificate verification is required"),
        ({"host": "127.0.0.1,meg.example.com"}, "TLS with certificate verification is required"),
        ({"extra": {"hostaddr": "10.1.2.3"}}, "TLS with certificate verification is required"),
        ({"host": "meg.example.com", "extra": {"sslmode": "require"}}, "TLS with certificate verification"),
        ({"extra": {"host": "10.1.2.3"}}, "unsupported key host"),
        ({"extra": {"conninfo": "hostaddr=10.1.2.3"}}, "unsupported key conninfo"),
        ({"extra": {"service": "elsewhere"}}, "unsupported key service"),
        ({"extra": {"autocommit": True}}, "unsupported key autocommit"),
        ({"extra": ["list"]}, "the connection's extra is not"),
        ({"host": ""}, "no sslmode to no host"),
        ({"extra": {"nonsense": 1}}, "unsupported key nonsense"),
        ({"host": "meg.example.com", "extra": {"sslmode": "zzz"}}, "TLS with certificate verification is required"),
    ],
)
def test_insecure_meg_is_refused(connection: Any, fields: dict[str, Any], message: str) -> None:
    """An insecure MEG connection is refused before anything is sent."""
    connection("MEG_EU", **fields)
    error = meg_error()
    assert isinstance(error, ConnectionConfigError)
    assert message in str(error)
    assert error.hint
    assert not error.retryable


def test_pghostaddr_does_not_bypass_tls(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGHOSTADDR in the environment does not bypass the check."""
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.2")
    connection("MEG_EU")
    assert "no sslmode to 127.0.0.1, 192.0.2.2" in str(meg_error())


def test_meg_down_names_slice(connection: Any) -> None:
    """The error names the slice that was read."""
    connection("MEG_EU")
    error = meg_error()
    assert isinstance(error, SourceUnavailableError)
    assert "monthly_submissions eu 2026-10 stage, MEG eu (connection meg_eu): MEG cannot be read" in str(error)
    assert error.retryable


def test_missing_tls_is_reported(connection: Any, servers: DatabaseServers) -> None:
    """A server without TLS is reported where TLS is required."""
    connection("MEG_EU", port=servers.postgres.port, extra={"sslmode": "verify-full", "sslrootcert": "system"})
    error = meg_error()
    assert isinstance(error, ConnectionConfigError)
    assert "no verified TLS connection to MEG" in str(error)
    connection("BI_MONGO", port=servers.mongo.port, extra={"tls": True, "serverSelectionTimeoutMS": 500})
    assert "connection's host, port and tls" in str(mongo_error())


def test_plaintext_stays_on_named_host(connection: Any, servers: DatabaseServers) -> None:
    """A server may give any host names for the members of its replica set; the driver would connect to them."""
    fields = json.loads(servers.connections({})["AIRFLOW_CONN_BI_MONGO"])
    connection("BI_MONGO", **{**fields, "host": "localhost", "extra": {"authSource": "admin"}})
    with open_store("here") as store:
        store.ledger.find_one()
        assert store.client.nodes == frozenset({("localhost", servers.mongo.port)})
    connection("BI_MONGO", **{**fields, "host": "127.0.0.1,127.0.0.2"})
    assert "TLS is required" in str(mongo_error())


@pytest.mark.parametrize(
    ("driver_error", "error_class", "message", "retryable"),
    [
        (ServerSelectionTimeoutError("x.mongodb.net:27017: timed out"), MongoUnavailableError, "IP access list", True),
        (
            AutoReconnect("x.mongodb.net:27017: [SSL: TLSV1_ALERT_INTERNAL_ERROR]"),
            MongoUnavailableError,
            "IP access list",
            True,
        ),
        (AutoReconnect("Name or service not known"), MongoUnavailableError, "MongoDB cannot be reached", True),
        (AutoReconnect("CERTIFICATE_VERIFY_FAILED"), ConnectionConfigError, "certificate cannot be trusted", False),
        (
            OperationFailure("user is not allowed to do action [insert] on [bi.x]", 8000),
            MongoConfigurationError,
            "role.json",
            False,
        ),
        (OperationFailure("bad auth : authentication failed", 8000), ConnectionConfigError, "authSource", False),
        (OperationFailure("you are over your space quota", 8000), MongoUnavailableError, "no room left", True),
        (
            OperationFailure("interrupted because the transaction exceeded 'transactionLifetimeLimitSeconds'", 290),
            MongoUnavailableError,
            "took longer than MongoDB's transactionLifetimeLimitSeconds",
            True,
        ),
        (OperationFailure("transaction is too large for the cache", 388), MongoUnavailableError, "cache", True),
        (
            OperationFailure('E11000 duplicate key error index: name_1 dup key: { user_name: "Mary" }', 11000),
            MongoConfigurationError,
            "a validator or unique index",
            False,
        ),
    ],
    ids=str,
)
def test_atlas_errors_are_translated(
    driver_error: PyMongoError, error_class: type[BiError], message: str, *, retryable: bool
) -> None:
    """Errors of Atlas are translated."""
    with pytest.raises(error_class) as caught, translate_pymongo_errors("here"):
        raise driver_error
    assert message in str(caught.value)
    assert "Mary" not in str(caught.value)
    assert caught.value.retryable is retryable


@pytest.mark.parametrize(
    ("cause", "error_class"),
    [(LifetimeTimeout(timeout=5, errors=[]), MongoUnavailableError), (NXDOMAIN(), ConnectionConfigError)],
    ids=["a name server that does not answer", "a name that does not exist"],
)
def test_dns_timeout_is_retryable(cause: Exception, error_class: type[BiError]) -> None:
    """A name server that does not answer now may answer later."""
    with pytest.raises(error_class), translate_pymongo_errors("here"):
        raise ConfigurationError(str(cause)) from cause


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("consuming input failed: SSL error: certificate verify failed"),
        psycopg.InternalError("received 2 results from command 'FETCH FORWARD 200 FROM \"meg_bi\"'"),
    ],
    ids=["while it waits", "amid an answer"],
)
def test_broken_connection_is_retryable(meg: MegReader, error: psycopg.Error) -> None:
    """A connection that breaks during a query is retried, even if the error text mentions TLS."""
    with pytest.raises(SourceUnavailableError), meg.query("SELECT 1", {}):
        raise error


@pytest.mark.parametrize(("field", "value"), [("password", PASSWORD), ("login", "nobody"), ("schema", "nowhere")])
def test_wrong_meg_login_is_final(connection: Any, servers: DatabaseServers, field: str, value: str) -> None:
    """A wrong login on MEG is not retried."""
    fields = json.loads(servers.connections({"eu": "meg_eu"})["AIRFLOW_CONN_MEG_EU"])
    connection("MEG_EU", **{**fields, field: value})
    error = meg_error()
    assert isinstance(error, ConnectionConfigError)
    assert not error.retryable


@pytest.mark.parametrize(("field", "value"), [("password", PASSWORD), ("login", "nobody")])
def test_wrong_mongodb_login_is_final(connection: Any, servers: DatabaseServers, field: str, value: str) -> None:
    """A wrong login on MongoDB is not retried."""
    fields = json.loads(servers.connections({})["AIRFLOW_CONN_BI_MONGO"])
    connection("BI_MONGO", **{**fields, field: value})
    error = mongo_error()
    assert isinstance(error, ConnectionConfigError)
    assert "authentication to MongoDB failed" in str(error)
    assert "clusterTime" not in str(error)


def test_missing_privilege_hides_command(servers: DatabaseServers, store: Store) -> None:
    """A missing privilege is reported without the command, which holds data."""
    with (
        pytest.raises(MongoConfigurationError) as caught,
        translate_pymongo_errors("somewhere"),
        servers.mongo.client() as client,
    ):
        client["others"]["names"].insert_one({"name": "Florence Nightingale"})
    assert "not authorized on others" in str(caught.value)
    assert "Florence" not in str(caught.value)
    assert "role.json" in caught.value.expected
    assert store.live.list_collection_names() == []


def test_standalone_mongodb_is_refused(connection: Any, meg: MegReader, meg_factory: MegFactory, tmp_path: Any) -> None:
    """A publish to a mongod outside a replica set is refused."""
    port = free_port()
    command = [str(mongod_path()), "--dbpath", str(tmp_path), "--port", str(port), "--bind_ip", "127.0.0.1", "--quiet"]
    standalone = Service("MongoDB", command, log=tmp_path / "log", environment=child_env(STACK, {}))
    try:
        client: MongoClient[dict[str, Any]] = MongoClient("127.0.0.1", port)
        standalone.wait_until(lambda: bool(client.admin.command("ping")), seconds=30)
        meg_factory.bulk_forms(1)
        connection("BI_MONGO", port=port, login=None, password=None)
        with pytest.raises(MongoConfigurationError, match="not a replica set"), open_store("here") as store:
            load_slice(store, meg, monthly_slice())
        client.close()
    finally:
        stop(standalone)


def test_missing_connection_names_variable() -> None:
    """The error names the environment variable that defines the connection."""
    with pytest.raises(ConnectionConfigError, match="AIRFLOW_CONN_BI_MONGO"), open_store("here"):
        pass


@pytest.mark.parametrize(("key", "actual"), [("short", "5 characters"), ("", "0 characters")])
def test_pseudonym_key_has_minimum_length(monkeypatch: pytest.MonkeyPatch, key: str, actual: str) -> None:
    """A short key for pseudonyms is refused."""
    settings = Settings.from_env({"MEG_REGIONS": "eu,uk", "BI_PSEUDONYMISE": "uk"})
    monkeypatch.setenv("AIRFLOW_CONN_BI_PSEUDONYMS", json.dumps({"conn_type": "generic", "password": key}))
    assert load_pseudonymizer("eu", settings) is None
    with pytest.raises(ConnectionConfigError, match=actual):
        load_pseudonymizer("uk", settings)


@pytest.mark.usefixtures("store")
def test_drivers_log_no_secret(connection: Any, servers: DatabaseServers, caplog: pytest.LogCaptureFixture) -> None:
    """No driver logs a secret."""
    fields = json.loads(servers.connections({"eu": "meg_eu"})["AIRFLOW_CONN_BI_MONGO"])
    connection("BI_MONGO", **fields)
    with caplog.at_level(logging.DEBUG), open_store("here") as opened:
        opened.ledger.find_one()
    assert fields["password"] not in caplog.text


def test_psycopg_errors_hide_password() -> None:
    """psycopg's errors hold no password."""
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(host="127.0.0.1", port=1, user="bi", password=PASSWORD, connect_timeout=2)
    assert PASSWORD not in str(caught.value)
