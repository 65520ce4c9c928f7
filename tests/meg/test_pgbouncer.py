"""Tests that MEG can be read through PgBouncer, and that each of its errors is reported correctly."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bi_ops.airflow import connections
from bi_ops.airflow.airflow_facts import read_airflow_facts
from bi_ops.airflow.connections import open_meg
from bi_ops.doctor.results import Status
from bi_ops.doctor.runner import run_all_checks
from bi_ops.errors import BiError, ConnectionConfigError, SourceUnavailableError
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings
from dev.embedded_stack import DatabaseServers
from dev.processes import Service
from tests.load_helpers import live_documents, load_slice, make_slice, monthly_slice
from tests.meg.pgbouncer import needs_pgbouncer, pgbouncer
from tests.meg_factory import MegFactory, connect_as_reader, utc

pytestmark = needs_pgbouncer


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that another account may enter."""
    path = Path(tempfile.mkdtemp(prefix="meg-bi-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def set_connections(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the connections of the region eu and MongoDB to these servers, with changed fields."""

    def make(servers: DatabaseServers, **changed: Any) -> None:
        for name, value in servers.connections({"eu": "meg_eu"}).items():
            fields = json.loads(value) | (changed if name.endswith("MEG_EU") else {})
            monkeypatch.setenv(name, json.dumps(fields))

    return make


def meg_error() -> BiError:
    with pytest.raises(BiError) as caught, open_meg("eu", application_name="test") as meg:
        meg.fetch_all("SELECT 1")
    return caught.value


def test_pgbouncer_transaction_pooling_works(
    servers: DatabaseServers, store: Store, meg_factory: MegFactory, folder: Path, set_connections: Any
) -> None:
    """Loads and the doctor work with a pool in transaction mode: they do not depend on a server session."""
    meg_factory.bulk_forms(30)
    with pgbouncer(folder, servers, default_pool_size="3") as (pool, _):
        set_connections(pool)
        with open_meg("eu", application_name="a") as first, open_meg("eu", application_name="b") as second:
            for meg in (first, second, first):
                assert load_slice(store, meg, monthly_slice(), max_tasks=3).documents == 30
                load_slice(store, meg, make_slice("top_users", utc(2026, 11, 1)))
        assert len(live_documents(store, monthly_slice())) == 30
        settings = Settings.from_env({"MEG_REGIONS": "eu"})
        findings = list(run_all_checks(settings, ("eu",), connections, read_airflow_facts()))
    assert [finding for finding in findings if finding.status is Status.FAILED] == []


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ({"schema": "nowhere"}, "PgBouncer does not know the connection's database or user", "pgbouncer.ini"),
        (
            {"extra": {"options": "-c work_mem=4MB"}},
            "PgBouncer rejected a connection parameter",
            "ignore_startup_parameters",
        ),
        ({"login": "stranger"}, "authentication to MEG failed", "connection"),
        ({"password": "wrong"}, "authentication to MEG failed", "connection"),
    ],
    ids=["database", "parameter", "user", "password"],
)
def test_pgbouncer_refusal_is_final(
    servers: DatabaseServers, folder: Path, set_connections: Any, fields: dict[str, Any], message: str, hint: str
) -> None:
    """A refusal by PgBouncer's configuration is a configuration error, and not retried."""
    with pgbouncer(folder, servers) as (pool, _):
        set_connections(pool, **fields)
        error = meg_error()
    assert isinstance(error, ConnectionConfigError)
    assert message in error.message
    assert hint in error.hint
    assert not error.retryable


def test_pgbouncer_ignoring_parameter_works(servers: DatabaseServers, folder: Path, set_connections: Any) -> None:
    """The hint for a refused parameter fixes it."""
    with pgbouncer(folder, servers, ignore_startup_parameters="options") as (pool, _):
        set_connections(pool, extra={"options": "-c work_mem=4MB"})
        with open_meg("eu", application_name="test") as meg:
            assert meg.fetch_all("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("dbname=nowhere", "MEG has no such database or role"),
        ("user=stranger password=x", "authentication to MEG failed"),
        ("user=bi_reader password=md5d41d8cd98f00b204e9800998ecf8427e", "PgBouncer cannot log in to MEG"),
    ],
    ids=["database", "user", "password type"],
)
def test_pgbouncer_login_to_meg_refused_is_final(
    servers: DatabaseServers, folder: Path, set_connections: Any, database: str, message: str
) -> None:
    """A login of PgBouncer that MEG refuses is not retried."""
    with pgbouncer(folder, servers, database=database) as (pool, _):
        set_connections(pool)
        error = meg_error()
    assert isinstance(error, ConnectionConfigError), error
    assert error.message == message


def test_pgbouncer_requiring_tls_is_final(servers: DatabaseServers, folder: Path, set_connections: Any) -> None:
    """A connection to this machine may omit TLS, but PgBouncer may require it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, "-subj", "/CN=localhost", *files], check=True, capture_output=True)
    tls = {"sslmode": "require", "key_file": str(key), "cert_file": str(certificate)}
    settings = {f"client_tls_{name}": value for name, value in tls.items()}
    with pgbouncer(folder, servers, **settings) as (pool, _):
        set_connections(pool, extra={"sslmode": "disable"})
        error = meg_error()
    assert isinstance(error, ConnectionConfigError), error
    assert error.message == "PgBouncer requires TLS"


def test_pgbouncer_without_server_is_retryable(servers: DatabaseServers, folder: Path, set_connections: Any) -> None:
    """PgBouncer answers, but MEG behind it is down."""
    with pgbouncer(folder, servers, database="port=1", client_login_timeout="1") as (pool, _):
        set_connections(pool)
        error = meg_error()
    assert isinstance(error, SourceUnavailableError)
    assert "client_login_timeout" in error.actual
    assert error.retryable


def test_pgbouncer_full_pool_is_retryable(servers: DatabaseServers, folder: Path, set_connections: Any) -> None:
    """Another client holds the pool's only server."""
    with pgbouncer(folder, servers, default_pool_size="1", query_wait_timeout="1") as (pool, _):
        set_connections(pool)
        connect = connect_as_reader(pool, "meg_eu")
        with (
            MegReader("eu", connect, application_name="a") as holder,
            holder.query("SELECT generate_series(1, 100000)", {}),
        ):
            error = meg_error()
    assert isinstance(error, SourceUnavailableError)
    assert "query_wait_timeout" in error.actual


def test_pgbouncer_shut_down_is_retryable(servers: DatabaseServers, folder: Path, set_connections: Any) -> None:
    """An administrator restarts PgBouncer while a query is read, and it refuses connections until it is back."""
    with pgbouncer(folder, servers) as (pool, service):
        set_connections(pool)
        with open_meg("eu", application_name="test") as meg, pytest.raises(SourceUnavailableError):
            read_and_kill(meg, service)
        assert isinstance(meg_error(), SourceUnavailableError)


def read_and_kill(meg: MegReader, service: Service) -> None:
    with meg.query("SELECT generate_series(1, 100000)", {}) as result:
        next(result.batches)
        service.process.kill()
        list(result.batches)


@pytest.mark.parametrize(
    ("text", "is_final"),
    [
        ("FATAL:  no such user: bi_reader", True),
        ("FATAL:  no such user", True),
        ("FATAL:  bouncer config error", True),
        ('FATAL:  database "meg" is disabled', True),
        ("FATAL:  database does not allow connections: meg", True),
        ("FATAL:  login rejected", True),
        ("FATAL:  unsupported startup parameter in options: work_mem", True),
        ("FATAL:  unsupported options startup parameter: only '-c config=val' is allowed", True),
        ("FATAL:  server login failed: wrong password type", True),
        ("FATAL:  server login failed: FATAL the database system is starting up", False),
        ("FATAL:  server login failed: FATAL sorry, too many clients already", False),
        ("FATAL:  server login has been failing, try again later (server_login_retry)", False),
        ("FATAL:  no more connections allowed (max_client_conn)", False),
        ("FATAL:  the database system is starting up", False),
    ],
)
def test_pgbouncer_texts_of_other_versions(text: str, *, is_final: bool) -> None:
    """Texts of other versions for the same conditions, and conditions that a test cannot cause."""

    def connect() -> psycopg.Connection[Any]:
        raise psycopg.OperationalError(f'connection failed: connection to server at "127.0.0.1" failed: {text}')

    with pytest.raises(BiError) as caught, MegReader("eu", connect, application_name="test") as meg:
        meg.fetch_all("SELECT 1")
    assert isinstance(caught.value, ConnectionConfigError) is is_final
