"""What a connection may say, and what is said of one that may not be used, or whose server fails."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psutil
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

from bi_ops.connections import open_meg, open_pseudonyms, open_store
from bi_ops.errors import (
    BiError,
    ConnectionSettingsError,
    MongoRefusedError,
    MongoUnavailableError,
    SourceUnavailableError,
)
from bi_ops.settings import Settings
from bi_ops.source import Meg
from bi_ops.store import Store
from bi_ops.store_errors import store_errors_told
from dev.mongo import binary
from dev.processes import Service, child_environment, free_port, stop
from dev.stack import Databases
from tests.conftest import STACK
from tests.loads import load_slice, month, until
from tests.megs import MegRows, connect_as_reader

PASSWORD = "hunter2-the-planted-secret"
MONGO = {"conn_type": "mongo", "host": "127.0.0.1", "port": 1, "login": "bi", "password": PASSWORD, "schema": "bi"}
MEG = {"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "login": "bi", "password": PASSWORD, "schema": "meg"}


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a connection of these fields, over ones that are harmless."""

    def make(name: str, **fields: Any) -> None:
        basis = MONGO if name == "BI_MONGO" else MEG
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({**basis, **fields}))

    return make


def told_of_mongo() -> BiError:
    with pytest.raises(BiError) as caught, open_store("monthly_submissions eu 2026-10 stage") as store:
        store.ledger.find_one()
    assert PASSWORD not in str(caught.value)
    return caught.value


def told_of_meg() -> BiError:
    with (
        pytest.raises(BiError) as caught,
        open_meg("eu", reader="monthly_submissions eu 2026-10 stage") as meg,
        meg.query("SELECT 1", {}) as result,
    ):
        list(result.batches)
    assert PASSWORD not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "mongo.example.com"}, "plaintext is refused"),
        ({"host": "10.1.2.3", "extra": {"authSource": "admin"}}, "no TLS to 10.1.2.3"),
        ({"host": "127.0.0.1:27017,10.1.2.3:27017", "port": None}, "plaintext is refused"),
        ({"host": "10.1.2.3", "extra": {"tls": False}}, "plaintext is refused"),
        ({"host": "10.1.2.3", "extra": {"tls": "false", "ssl": "true"}}, "plaintext is refused"),
        ({"host": "localhost.example.com"}, "plaintext is refused"),
        ({"host": "bi.ab1cd.mongodb.net", "port": None, "extra": {"srv": True, "tls": False}}, "plaintext is refused"),
        ({"host": "bi.ab1cd.mongodb.net", "port": None, "extra": {"srv": "false"}}, "srv is refused"),
        ({"host": "10.1.2.3", "extra": {"tls": True, "allow_insecure": True}}, "allow_insecure is refused"),
        ({"host": "10.1.2.3", "extra": {"ssl": "true", "allow_insecure": "true"}}, "allow_insecure is refused"),
        ({"extra": {"allow_insecure": True}}, "allow_insecure is refused"),
        ({"extra": {"tls": True, "tlsAllowInvalidCertificates": True}}, "tlsallowinvalidcertificates is refused"),
        ({"extra": {"tls": True, "tlsallowinvalidhostnames": "true"}}, "tlsallowinvalidhostnames is refused"),
        ({"extra": {"tls": True, "tlsInsecure": "True"}}, "tlsinsecure is refused"),
        ({"schema": "bi?tlsInsecure=true&tls=true"}, "name of the database has a character"),
        ({"host": "10.1.2.3", "schema": "bi?tls=false", "extra": {"ssl": True}}, "found ?"),
        ({"host": "a:b:c"}, "not where a MongoDB can be"),
        ({"host": "mongodb://127.0.0.1"}, "not where a MongoDB can be"),
        ({"extra": {"TLS": True, "tls": False}}, "an option twice is refused"),
        ({"extra": {"tls": True, "tlsCAFile": "/nowhere.pem"}}, "driver cannot use this connection"),
        ({"extra": {"nonsense": 1}}, "driver cannot use this connection"),
        ({"extra": {"connectTimeoutMS": "soon"}}, "driver cannot use this connection"),
        ({"conn_type": "postgres"}, "conn_type"),
    ],
)
def test_a_mongodb_that_may_not_be_used_is_refused_before_it_is_asked(
    connection: Any, fields: dict[str, Any], message: str
) -> None:
    connection("BI_MONGO", **fields)
    began = time.monotonic()
    error = told_of_mongo()
    assert isinstance(error, ConnectionSettingsError)
    assert message in str(error)
    assert error.cure
    assert not error.heals_by_itself
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.10", "[::1]"])
def test_plaintext_is_allowed_on_this_machine(connection: Any, host: str) -> None:
    connection("BI_MONGO", host=host, extra={"serverSelectionTimeoutMS": 200})
    error = told_of_mongo()
    assert isinstance(error, MongoUnavailableError)
    assert "monthly_submissions eu 2026-10 stage, connection bi_mongo: MongoDB cannot be reached" in str(error)
    assert error.heals_by_itself


def test_tls_to_another_machine_is_not_refused(connection: Any) -> None:
    connection("BI_MONGO", host="192.0.2.1", extra={"tls": True, "serverSelectionTimeoutMS": 200})
    assert isinstance(told_of_mongo(), MongoUnavailableError)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "meg.example.com"}, "plaintext is refused"),
        ({"host": "meg.example.com", "extra": {"sslmode": "prefer"}}, "prefer to meg.example.com"),
        ({"host": "meg.example.com", "extra": {"sslmode": "disable"}}, "plaintext is refused"),
        ({"host": "127.0.0.1,meg.example.com"}, "plaintext is refused"),
        ({"extra": {"hostaddr": "10.1.2.3"}}, "plaintext is refused"),
        ({"host": "meg.example.com", "extra": {"sslmode": "require"}}, "a certificate that nobody checks"),
        ({"extra": {"host": "10.1.2.3"}}, "the extra may not say host"),
        ({"extra": {"conninfo": "hostaddr=10.1.2.3"}}, "the extra may not say conninfo"),
        ({"extra": {"service": "elsewhere"}}, "the extra may not say service"),
        ({"extra": {"autocommit": True}}, "the extra may not say autocommit"),
        ({"extra": ["list"]}, "the extra may not say"),
        ({"host": ""}, "no sslmode to no host"),
        ({"extra": {"nonsense": 1}}, "the extra may not say nonsense"),
        ({"host": "meg.example.com", "extra": {"sslmode": "zzz"}}, "plaintext is refused"),
    ],
)
def test_a_meg_that_may_not_be_used_is_refused_before_it_is_asked(
    connection: Any, fields: dict[str, Any], message: str
) -> None:
    connection("MEG_EU", **fields)
    error = told_of_meg()
    assert isinstance(error, ConnectionSettingsError)
    assert message in str(error)
    assert error.cure
    assert not error.heals_by_itself


def test_an_address_in_the_environment_is_no_way_around(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.2")
    connection("MEG_EU")
    assert "no sslmode to 127.0.0.1, 192.0.2.2" in str(told_of_meg())


def test_a_meg_that_is_down_is_named_with_the_slice(connection: Any) -> None:
    connection("MEG_EU")
    error = told_of_meg()
    assert isinstance(error, SourceUnavailableError)
    assert "monthly_submissions eu 2026-10 stage, MEG eu (connection meg_eu): MEG cannot be read" in str(error)
    assert error.heals_by_itself


def test_what_needs_tls_and_finds_none_is_told(connection: Any, servers: Databases) -> None:
    connection("MEG_EU", port=servers.postgres.port, extra={"sslmode": "verify-full", "sslrootcert": "system"})
    error = told_of_meg()
    assert isinstance(error, ConnectionSettingsError)
    assert "no encrypted connection that can be trusted" in str(error)
    connection("BI_MONGO", port=servers.mongo.port, extra={"tls": True, "serverSelectionTimeoutMS": 500})
    assert "connection's host, port and tls" in str(told_of_mongo())


def test_without_tls_the_driver_asks_the_host_that_was_named_and_no_other(connection: Any, servers: Databases) -> None:
    """A server may call the members of its replica set by any name; the driver would follow."""
    fields = json.loads(servers.connections({})["AIRFLOW_CONN_BI_MONGO"])
    connection("BI_MONGO", **{**fields, "host": "localhost", "extra": {"authSource": "admin"}})
    with open_store("here") as store:
        store.ledger.find_one()
        assert store.client.nodes == frozenset({("localhost", servers.mongo.port)})
    connection("BI_MONGO", **{**fields, "host": "127.0.0.1,127.0.0.2"})
    assert "plaintext is refused" in str(told_of_mongo())


@pytest.mark.parametrize(
    ("driver", "kind", "message", "heals"),
    [
        (ServerSelectionTimeoutError("x.mongodb.net:27017: timed out"), MongoUnavailableError, "IP access list", True),
        (
            AutoReconnect("x.mongodb.net:27017: [SSL: TLSV1_ALERT_INTERNAL_ERROR]"),
            MongoUnavailableError,
            "IP access list",
            True,
        ),
        (AutoReconnect("Name or service not known"), MongoUnavailableError, "MongoDB cannot be reached", True),
        (AutoReconnect("CERTIFICATE_VERIFY_FAILED"), ConnectionSettingsError, "certificate cannot be trusted", False),
        (
            OperationFailure("user is not allowed to do action [insert] on [bi.x]", 8000),
            MongoRefusedError,
            "role.json",
            False,
        ),
        (OperationFailure("bad auth : authentication failed", 8000), ConnectionSettingsError, "authSource", False),
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
            MongoRefusedError,
            "a rule of the live collection",
            False,
        ),
    ],
    ids=str,
)
def test_what_atlas_answers_is_understood(
    driver: PyMongoError, kind: type[BiError], message: str, *, heals: bool
) -> None:
    with pytest.raises(kind) as caught, store_errors_told("here"):
        raise driver
    assert message in str(caught.value)
    assert "Mary" not in str(caught.value)
    assert caught.value.heals_by_itself is heals


@pytest.mark.parametrize(
    ("cause", "kind"),
    [(LifetimeTimeout(timeout=5, errors=[]), MongoUnavailableError), (NXDOMAIN(), ConnectionSettingsError)],
    ids=["a name server that does not answer", "a name that does not exist"],
)
def test_a_name_server_that_does_not_answer_may_answer_later(cause: Exception, kind: type[BiError]) -> None:
    with pytest.raises(kind), store_errors_told("here"):
        raise ConfigurationError(str(cause)) from cause


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("consuming input failed: SSL error: certificate verify failed"),
        psycopg.InternalError("received 2 results from command 'FETCH FORWARD 200 FROM \"meg_bi\"'"),
    ],
    ids=["while it waits", "amid an answer"],
)
def test_a_wire_that_breaks_in_a_query_is_tried_again_whatever_it_says_of_tls(meg: Meg, error: psycopg.Error) -> None:
    with pytest.raises(SourceUnavailableError), meg.query("SELECT 1", {}):
        raise error


@pytest.mark.parametrize(("field", "value"), [("password", PASSWORD), ("login", "nobody"), ("schema", "nowhere")])
def test_a_login_that_meg_does_not_know_is_not_tried_again(
    connection: Any, servers: Databases, field: str, value: str
) -> None:
    fields = json.loads(servers.connections({"eu": "meg_eu"})["AIRFLOW_CONN_MEG_EU"])
    connection("MEG_EU", **{**fields, field: value})
    error = told_of_meg()
    assert isinstance(error, ConnectionSettingsError)
    assert not error.heals_by_itself


@pytest.mark.parametrize(("field", "value"), [("password", PASSWORD), ("login", "nobody")])
def test_a_login_that_mongodb_does_not_know_is_not_tried_again(
    connection: Any, servers: Databases, field: str, value: str
) -> None:
    fields = json.loads(servers.connections({})["AIRFLOW_CONN_BI_MONGO"])
    connection("BI_MONGO", **{**fields, field: value})
    error = told_of_mongo()
    assert isinstance(error, ConnectionSettingsError)
    assert "does not let this account in" in str(error)
    assert "clusterTime" not in str(error)


def test_a_right_that_is_missing_is_told_without_the_command(servers: Databases, store: Store) -> None:
    with (
        pytest.raises(MongoRefusedError) as caught,
        store_errors_told("somewhere"),
        servers.mongo.client() as client,
    ):
        client["others"]["names"].insert_one({"name": "Florence Nightingale"})
    assert "not authorized on others" in str(caught.value)
    assert "Florence" not in str(caught.value)
    assert "role.json" in caught.value.expected
    assert store.live.list_collection_names() == []


def test_a_server_without_transactions_is_told(connection: Any, meg: Meg, rows: MegRows, tmp_path: Any) -> None:
    """A publish to a mongod that is no member of a replica set."""
    port = free_port()
    command = [str(binary()), "--dbpath", str(tmp_path), "--port", str(port), "--bind_ip", "127.0.0.1", "--quiet"]
    alone = Service("MongoDB", command, log=tmp_path / "log", environment=child_environment(STACK, {}))
    try:
        client: MongoClient[dict[str, Any]] = MongoClient("127.0.0.1", port)
        alone.wait_until(lambda: bool(client.admin.command("ping")), seconds=30)
        rows.many_forms(1)
        connection("BI_MONGO", port=port, login=None, password=None)
        with pytest.raises(MongoRefusedError, match="not a replica set"), open_store("here") as store:
            load_slice(store, meg, month())
        client.close()
    finally:
        stop(alone)


def test_a_missing_connection_is_named_with_the_variable_that_would_make_it() -> None:
    with pytest.raises(ConnectionSettingsError, match="AIRFLOW_CONN_BI_MONGO"), open_store("here"):
        pass


@pytest.mark.parametrize(("key", "found"), [("short", "5 characters"), ("", "0 characters")])
def test_pseudonyms_need_a_key_that_cannot_be_guessed(monkeypatch: pytest.MonkeyPatch, key: str, found: str) -> None:
    settings = Settings.from_environment({"MEG_REGIONS": "eu,uk", "BI_PSEUDONYMISE": "uk"})
    monkeypatch.setenv("AIRFLOW_CONN_BI_PSEUDONYMS", json.dumps({"conn_type": "generic", "password": key}))
    assert open_pseudonyms("eu", settings) is None
    with pytest.raises(ConnectionSettingsError, match=found):
        open_pseudonyms("uk", settings)


@pytest.fixture
def frozen(servers: Databases) -> Iterator[Any]:
    """Stops PostgreSQL's process that serves a connection, until the test's end."""
    stopped: list[psutil.Process] = []

    def freeze(application: str) -> None:
        with servers.postgres.connect() as admin:
            query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
            until(lambda: admin.execute(query, (application,)).fetchone() is not None)
            [pid] = admin.execute(query, (application,)).fetchone() or [0]
        stopped.append(psutil.Process(pid))
        stopped[0].suspend()

    yield freeze
    for process in stopped:
        process.resume()


def test_a_meg_that_says_nothing_at_all_is_given_up(servers: Databases, frozen: Any) -> None:
    """A frozen server keeps no statement timeout, and the kernel goes on acknowledging for it."""
    connect = connect_as_reader(servers, "meg_eu")
    short = timedelta(seconds=1)
    began = time.monotonic()
    with Meg("eu", connect, reader="frozen", statement_timeout=short, grace=short) as meg:
        threading.Timer(0.3, lambda: frozen("meg-bi frozen")).start()
        with pytest.raises(SourceUnavailableError), meg.query("SELECT pg_sleep(0.9)", {}) as result:
            list(result.batches)
    assert time.monotonic() - began < 10


def test_a_meg_that_says_nothing_once_all_is_read_is_given_up_too(servers: Databases, frozen: Any) -> None:
    short = timedelta(seconds=1)
    began = time.monotonic()
    with Meg("eu", connect_as_reader(servers, "meg_eu"), reader="late", statement_timeout=short, grace=short) as meg:

        def read_all() -> None:
            with meg.query("SELECT 1", {}) as result:
                list(result.batches)
                frozen("meg-bi late")

        with pytest.raises(SourceUnavailableError):
            read_all()
        assert time.monotonic() - began < 10


def test_no_driver_logs_a_secret(
    connection: Any, servers: Databases, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fields = json.loads(servers.connections({"eu": "meg_eu"})["AIRFLOW_CONN_BI_MONGO"])
    connection("BI_MONGO", **fields)
    assert store.live.list_collection_names() == []
    with caplog.at_level(logging.DEBUG), open_store("here") as opened:
        opened.ledger.find_one()
    assert fields["password"] not in caplog.text


def test_psycopg_repeats_no_password() -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(host="127.0.0.1", port=1, user="bi", password=PASSWORD, connect_timeout=2)
    assert PASSWORD not in str(caught.value)
