"""Tests the errors for connections that cannot be read: they explain the problem and show no secret."""

from __future__ import annotations

import json
import logging
import re
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.secrets_backend import BaseSecretsBackend

from bi_ops.airflow.connections import load_pseudonymizer, mongo_client_settings, open_meg, open_store
from bi_ops.airflow.notifier import BiNotifier
from bi_ops.airflow.reports_connection import open_reports_store, reports_conn_id
from bi_ops.errors import BiError, ConnectionConfigError, MongoUnavailableError, SourceUnavailableError
from bi_ops.settings import Settings
from dev.embedded_stack import DatabaseServers

SECRET = "s3cr3t"
MEG_URI = f"postgresql://bi_reader:{SECRET}{{}}x{SECRET}@127.0.0.1:5432/meg"
MONGO_FIELDS = f'"conn_type": "mongo", "host": "127.0.0.1", "password": "{SECRET}"'
UNREADABLE: dict[str, tuple[str, str, str, str]] = {
    "a hash in the password": ("MEG_EU", MEG_URI.format("#"), "character #", "%23"),
    "a slash in the password": ("MEG_EU", MEG_URI.format("/"), "character /", "%2F"),
    "a question mark in the password": ("MEG_EU", MEG_URI.format("?"), "character ?", "%3F"),
    "a bracket in the password": ("MEG_EU", MEG_URI.format("["), "character [", "%5B"),
    "digits before a hash": ("MEG_EU", f"postgresql://{SECRET}:12#{SECRET}@127.0.0.1/meg", "character #", "%23"),
    "digits before a slash": ("MEG_EU", f"postgresql://{SECRET}:12/{SECRET}@127.0.0.1/meg", "character /", "%2F"),
    "digits before a question mark": ("MEG_EU", f"postgresql://{SECRET}:12?{SECRET}@127.0.0.1", "character ?", "%3F"),
    "an at and a slash": ("BI_MONGO", f"mongo://w:a@{SECRET}/{SECRET}@127.0.0.1/bi", "character /", "%40"),
    "a scheme in the password": ("BI_MONGO", f"mongo://w:{SECRET}://{SECRET}@127.0.0.1/bi", "character /", "%2F"),
    "several hosts of MongoDB": (
        "BI_MONGO",
        f"mongo://w:{SECRET}@h1:27017,h2:27017/bi?replicaSet=rs0&tls=true",
        "several hosts",
        '"host": "h1:27017,h2:27017"',
    ),
    "several hosts of PostgreSQL": (
        "MEG_EU",
        f"postgresql://w:{SECRET}@h1:5432,h2:5432/meg",
        "several hosts",
        '"host": "h1,h2"',
    ),
    "unknown fields": (
        "BI_MONGO",
        f'{{{MONGO_FIELDS}, "username": "{SECRET}", "database": "bi", "tls": true, "Port": 1, "logn": "x"}}',
        "Port, database, logn, tls",
        "Rename Port to port; Rename database to schema; Rename logn to login; Move tls into extra",
    ),
    "a user name and a database": (
        "MEG_EU",
        f'{{"conn_type": "postgres", "username": "bi", "password": "{SECRET}", "database": "meg"}}',
        "database, username",
        "Rename database to schema; Rename username to login",
    ),
    "a Python dictionary": (
        "BI_MONGO",
        f"{{'conn_type': 'mongo', 'password': '{SECRET}'}}",
        "a Python dictionary",
        '"conn_type": "mongo"',
    ),
    "a Python constant": ("BI_MONGO", f'{{{MONGO_FIELDS}, "extra": {{"tls": True}}}}', "a Python dictionary", "JSON"),
    "broken JSON": ("BI_MONGO", f'{{{MONGO_FIELDS}, "port": }}', "line 1, column 75", "comma, quote or brace"),
    "a port with a database": ("BI_MONGO", f'{{{MONGO_FIELDS}, "port": "27017/bi"}}', "port is not", "schema"),
    "a port out of range": ("MEG_EU", f"postgresql://w:{SECRET}@127.0.0.1:54320000/meg", "port is not", "number"),
    "a password without quotes": ("BI_MONGO", '{"conn_type": "mongo", "password": 5}', "password is not", "quotes"),
    "an extra that is a list": (
        "BI_MONGO",
        f'{{{MONGO_FIELDS}, "extra": ["{SECRET}"]}}',
        "extra is not a JSON object",
        "extra",
    ),
    "an extra that is no JSON": (
        "MEG_EU",
        f'{{"conn_type": "postgres", "extra": "x={SECRET}"}}',
        "not a JSON object",
        "",
    ),
    "empty": ("BI_MONGO", "", "value is empty", '"conn_type": "mongo"'),
    "blank": ("MEG_EU", " \n", "value is empty", '"conn_type": "postgres"'),
    "an SRV scheme": ("BI_MONGO", f"mongodb+srv://w:{SECRET}@bi.ab1cd.mongodb.net/bi", "SRV", "?srv=true"),
    "an SRV type": ("BI_MONGO", f'{{"conn_type": "mongodb+srv", "password": "{SECRET}"}}', "SRV", '{"srv": true}'),
    "srv under another name": (
        "BI_MONGO",
        f'{{{MONGO_FIELDS}, "extra": {{"use_srv": true}}}}',
        "use_srv in the extra",
        '{"srv": true}',
    ),
    "the driver's scheme": ("BI_MONGO", f"mongodb://w:{SECRET}@127.0.0.1/bi", "conn_type is not", "mongo://"),
    "IPv6 without brackets in a URI": ("BI_MONGO", f"mongo://w:{SECRET}@::1:27017/bi", "IPv6", '"host": "[::1]"'),
    "IPv6 with brackets in a URI": ("BI_MONGO", f"mongo://w:{SECRET}@[::1]:27017/bi", "IPv6", '"host": "[::1]"'),
    "IPv6 without brackets": (
        "BI_MONGO",
        f'{{"conn_type": "mongo", "host": "::1", "login": "w", "password": "{SECRET}"}}',
        "IPv6 address without brackets",
        '"host": "[::1]"',
    ),
    "IPv6 of PostgreSQL": ("MEG_EU", f"postgresql://w:{SECRET}@::1:5432/meg", "IPv6", "[::1]"),
    "IPv6 of PostgreSQL in brackets": (
        "MEG_EU",
        f'{{"conn_type": "postgres", "host": "[::1]", "login": "w", "password": "{SECRET}"}}',
        "in brackets",
        '"::1"',
    ),
    "in quotes": ("BI_MONGO", f'"mongo://w:{SECRET}@127.0.0.1/bi"', "quotes around", "Remove the quotes"),
    "JSON in quotes": ("MEG_EU", f'\'{{"conn_type": "postgres", "password": "{SECRET}"}}\'', "quotes around", "Remove"),
    "libpq's own form": ("MEG_EU", f"host=127.0.0.1 password={SECRET}", "neither a URI nor JSON", "JSON"),
}


def use_connection(name: str) -> None:
    if name.lower() == "bi_mongo":
        with open_store("here") as store:
            store.ledger.find_one()
    else:
        with open_meg("eu", application_name="here") as meg:
            meg.fetch_all("SELECT 1")


def connection_error(name: str) -> BiError:
    """The error that using a connection raises."""
    with pytest.raises(BiError) as caught:
        use_connection(name)
    return caught.value


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_connection_is_explained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    """The message says what is wrong with the value, and neither it nor Airflow's log shows any of it."""
    name, value, problem, hint = UNREADABLE[case]
    monkeypatch.setenv(f"AIRFLOW_CONN_{name}", value)
    with caplog.at_level(logging.DEBUG):
        error = connection_error(name)
    assert isinstance(error, ConnectionConfigError)
    assert f"connection {name.lower()}" in error.context
    assert problem in f"{error.message} {error.actual}"
    assert hint in error.hint
    logged = caplog.text + "".join(capfd.readouterr())
    assert SECRET not in "".join(traceback.format_exception(error)) + repr(error.__context__) + logged


class FolderBackend(BaseSecretsBackend):
    """A secrets backend that keeps each connection in a file, like the secrets of Docker and Kubernetes."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:  # noqa: ARG002 - Airflow's
        file = self.folder / conn_id
        return file.read_text() if file.exists() else None


@pytest.fixture
def secrets_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a secrets backend that Airflow is configured with."""
    for section, prefix in (("SECRETS", "BACKEND"), ("WORKERS", "SECRETS_BACKEND")):
        monkeypatch.setenv(f"AIRFLOW__{section}__{prefix}", f"{__name__}.{FolderBackend.__name__}")
        monkeypatch.setenv(f"AIRFLOW__{section}__{prefix}_KWARGS", json.dumps({"folder": str(tmp_path)}))
    monkeypatch.setattr("airflow.sdk.configuration._secrets_backend_cache", {})
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("meg_eu", MEG_URI.format("#"), "character #"),
        ("meg_eu", f"postgresql://{SECRET}:12#{SECRET}@127.0.0.1/meg", "character #"),
        ("meg_eu", f"postgresql://w:a@{SECRET}/{SECRET}@127.0.0.1/meg", "character /"),
        ("meg_eu", f"postgresql://w:a@{SECRET}?{SECRET}@127.0.0.1/meg", r"character \?"),
        ("bi_mongo", f'{{{MONGO_FIELDS}, "username": "w"}}', "unknown fields"),
        ("bi_mongo", f"mongo://{SECRET}://a://b://c", "character /|cannot read the connection's value"),
        ("bi_mongo", "", "value is empty"),
    ],
)
def test_unreadable_secret_is_explained(secrets_folder: Path, name: str, value: str, problem: str) -> None:
    """A value from a secrets backend is explained like one from the environment, with the backend's name."""
    (secrets_folder / name).write_text(value)
    error = connection_error(name)
    assert re.search(problem, str(error))
    assert error.context == f"connection {name} (FolderBackend)"
    assert SECRET not in "".join(traceback.format_exception(error))


def test_unreadable_reports_connection_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable bi_reports is reported: the reports never read through the writing account instead."""
    assert reports_conn_id() == "bi_mongo"
    monkeypatch.setenv("AIRFLOW_CONN_BI_REPORTS", "")
    assert reports_conn_id() == "bi_mongo"
    monkeypatch.setenv("AIRFLOW_CONN_BI_REPORTS", f"mongo://r:{SECRET}#@127.0.0.1/bi")
    assert reports_conn_id() == "bi_reports"
    with pytest.raises(ConnectionConfigError, match=r"connection bi_reports .*character #"), open_reports_store():
        pass


def test_unreadable_pseudonyms_key_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_env({"MEG_REGIONS": "eu", "BI_PSEUDONYMISE": "on"})
    monkeypatch.setenv("AIRFLOW_CONN_BI_PSEUDONYMS", f"generic://:{SECRET}#{SECRET}@")
    with pytest.raises(ConnectionConfigError, match="character #") as caught:
        load_pseudonymizer("eu", settings)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_unreadable_notify_connection_is_logged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """If no notification can be sent, the log gives the reason."""
    context: Any = {"dag": SimpleNamespace(dag_id="bi_monthly"), "run_id": "run"}
    BiNotifier().notify(context)
    assert "connection bi_notify not found" in capfd.readouterr().out
    monkeypatch.setenv("AIRFLOW_CONN_BI_NOTIFY", f"{{'conn_type': 'apprise', 'password': '{SECRET}'}}")
    BiNotifier().notify(context)
    logged = capfd.readouterr().out
    assert "connection bi_notify (AIRFLOW_CONN_BI_NOTIFY): the connection's value is a Python" in logged
    assert SECRET not in logged


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEG_EU", "postgresql://bi:p%23w%40%2F%3F@127.0.0.1:1/meg?application_name=a@b"),
        ("MEG_EU", "postgres://bi:p@w:d@127.0.0.1:1/meg"),
        ("MEG_EU", "postgresql://bi:pw@[::1]:1/meg"),
        ("MEG_EU", ' {"conn_type": "postgres", "host": "::1", "port": "1", "login": "a", "extra": "{}"}\n'),
        ("BI_MONGO", "mongo://w:pw@127.0.0.1:1/bi?serverSelectionTimeoutMS=200&appname=a@b"),
        ("BI_MONGO", "mongo://127.0.0.1:1/bi?serverSelectionTimeoutMS=200"),
        ("BI_MONGO", "mongo://w:pw@h1.invalid,h2.invalid:1/bi?tls=true&serverSelectionTimeoutMS=200"),
        ("BI_MONGO", '{"conn_type": "mongo", "host": "[::1]:1", "extra": {"serverSelectionTimeoutMS": 200}}'),
    ],
)
def test_readable_connection_is_tried(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Correct values are accepted: the errors only say that no server answers at these addresses."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{name}", value)
    error = connection_error(name)
    assert isinstance(error, MongoUnavailableError | SourceUnavailableError)


@pytest.mark.parametrize(
    ("schema", "problem", "actual"),
    [
        *((f"bi{character}x", "invalid character", character) for character in '/\\."$*<>:|?%+'),
        ("bi.prod", "invalid character", "."),
        ("bi prod", "invalid character", "a space"),
        ("bi\x00", "invalid character", "'\\x00'"),
        ("b" * 56, "too long", "56 bytes"),
        ("ä" * 28, "too long", "56 bytes"),
        ("admin", "reserved by MongoDB", "admin"),
        ("local", "reserved by MongoDB", "local"),
        ("config", "reserved by MongoDB", "config"),
    ],
)
def test_invalid_database_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, schema: str, problem: str, actual: str
) -> None:
    """The error names the rule before MongoDB is contacted, for the reports page too, and is final."""
    fields = {"conn_type": "mongo", "host": "127.0.0.1", "port": 1, "schema": schema}
    monkeypatch.setenv("AIRFLOW_CONN_BI_MONGO", json.dumps(fields))
    error = connection_error("BI_MONGO")
    assert isinstance(error, ConnectionConfigError)
    assert not error.retryable
    assert problem in error.message
    assert error.actual == actual
    assert "at most 55 bytes" in error.expected
    with pytest.raises(ConnectionConfigError, match=re.escape(error.message)):
        mongo_client_settings("bi_mongo")


def test_longest_database_name_works(servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """MongoDB accepts the longest allowed names, also with the suffix of the staging database."""
    names = ["ä" * 27 + "b", "b-#@'=&!_"]
    admin = servers.mongo_admin
    fields = {"conn_type": "mongo", "host": admin.host, "port": admin.port, "login": admin.login}
    for name in names:
        value = {**fields, "password": admin.password, "schema": name, "extra": {"authSource": "admin"}}
        monkeypatch.setenv("AIRFLOW_CONN_BI_MONGO", json.dumps(value))
        with open_store("here") as store:
            store.ensure_staging_collections("monthly_submissions")
            store.ensure_live_collections("monthly_submissions")
            databases = set(store.client.list_database_names())
            for database in (name, f"{name}_staging"):
                store.client.drop_database(database)
        assert {name, f"{name}_staging"} <= databases
