"""The doctor passes the embedded stack, and names each thing that is broken with its cure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from bi_ops.doctor.examination import examine_all
from bi_ops.doctor.findings import Finding, Verdict, report
from bi_ops.doctor.meg import clock_finding
from bi_ops.relations import RELATIONS
from bi_ops.settings import Settings
from bi_ops.store import Store
from bi_ops.templates import include_folder, render
from dev import meg as reference
from dev.stack import DATABASE, WRITER, Databases
from tests.megs import utc


@dataclass
class Patient:
    """All that can be broken.

    Attributes:
        servers: The databases.
        meg: An administrator's connection to the region eu's MEG.
    """

    servers: Databases
    meg: psycopg.Connection[Any]

    @contextmanager
    def connection(self, name: str, **changed: Any) -> Iterator[None]:
        """Some fields of a connection are others."""
        variable = f"AIRFLOW_CONN_{name}"
        fields = self.servers.connections({"eu": "meg_eu", "uk": "meg_uk"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable, json.dumps({**json.loads(fields[variable]), **changed}))
            yield

    def examine(self, **settings: str) -> list[Finding]:
        environment = {"BI_AGGREGATE": "1", "MEG_REGIONS": "eu,uk", **settings}
        return list(examine_all(Settings.from_environment(environment), ("eu", "uk")))


@pytest.fixture
def patient(servers: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Patient]:
    for name, value in servers.connections({"eu": "meg_eu", "uk": "meg_uk"}).items():
        monkeypatch.setenv(name, value)
    with servers.postgres.connect("meg_eu") as meg:
        yield Patient(servers, meg)


def failed(findings: list[Finding]) -> dict[str, Finding]:
    return {f"{each.subject}, {each.check}": each for each in findings if each.verdict is Verdict.FAILED}


def test_the_embedded_stack_is_well_but_for_the_indexes_of_the_reports(patient: Patient, store: Store) -> None:
    assert store.live.list_collection_names() == []
    findings = patient.examine()
    assert failed(findings) == {}
    assert [each.check for each in findings if each.verdict is Verdict.WARNING] == ["indexes for the reports"]
    assert len(findings) > 25
    assert store.live.list_collection_names() == store.client[f"{DATABASE}_staging"].list_collection_names() == []
    text = report(findings)
    assert not [secret for secret in patient.servers.secret.values() if secret in text]
    assert "relations" in text


def test_recommended_indexes_that_are_there_are_seen(patient: Patient, store: Store) -> None:
    assert store.live.name == DATABASE
    recommended = json.loads((include_folder() / "mongo" / "indexes.json").read_text())
    with patient.servers.mongo_admin.client() as admin:
        for collection, indexes in recommended.items():
            for index in indexes:
                admin[DATABASE][collection].create_index(list(index["key"].items()), name=index["name"])
        assert {each.verdict for each in patient.examine()} == {Verdict.OK}
        admin.drop_database(DATABASE)


Break = Callable[[Patient], AbstractContextManager[None]]


@contextmanager
def sql(patient: Patient, broken: str, mended: str) -> Iterator[None]:
    patient.meg.execute(broken)
    try:
        yield
    finally:
        patient.meg.execute(mended)


def mended_rights(patient: Patient) -> None:
    patient.meg.execute((include_folder() / "meg" / "reader.sql").read_bytes())


@contextmanager
def account(patient: Patient, roles: list[Any]) -> Iterator[None]:
    """The pipeline's account of MongoDB has these roles."""
    with patient.servers.mongo_admin.client() as admin:
        admin.admin.command("updateUser", WRITER, roles=roles)
        try:
            yield
        finally:
            admin.admin.command("updateUser", WRITER, roles=["biPipeline"])


def with_sql(broken: str, mended: str) -> Break:
    return lambda patient: sql(patient, broken, mended)


def with_connection(name: str, **changed: Any) -> Break:
    return lambda patient: patient.connection(name, **changed)


TABLE = "megforms_auditsession"
BROKEN: dict[str, tuple[Break, str, str, str]] = {
    "region down": (with_connection("MEG_EU", port=1), "MEG eu, connection", "refused", "server is up"),
    "wrong password": (with_connection("MEG_EU", password="wrong"), "MEG eu, connection", "authentication", "Mend"),
    "no such database": (with_connection("MEG_EU", schema="nowhere"), "MEG eu, connection", "nowhere", "Mend"),
    "plaintext to MEG": (with_connection("MEG_EU", host="10.0.0.1"), "MEG eu, connection", "plaintext", "verify-full"),
    "one database twice": (
        with_connection("MEG_UK", schema="meg_eu"),
        "MEG uk, a database of its own",
        "meg_uk and meg_eu",
        "Mend the connection meg_uk",
    ),
    "a role that writes": (
        with_sql(f"GRANT INSERT ON {TABLE} TO bi_reader", f"REVOKE INSERT ON {TABLE} FROM bi_reader"),
        "MEG eu, rights",
        TABLE,
        "reader.sql",
    ),
    "a role that may do anything": (
        with_sql("ALTER ROLE bi_reader SUPERUSER", "ALTER ROLE bi_reader NOSUPERUSER"),
        "MEG eu, rights",
        "superuser",
        "reader.sql",
    ),
    "a role that may become another": (
        with_sql(
            "CREATE ROLE bi_somebody; GRANT UPDATE ON auth_user TO bi_somebody; GRANT bi_somebody TO bi_reader",
            "DROP OWNED BY bi_somebody; DROP ROLE bi_somebody",
        ),
        "MEG eu, rights",
        "auth_user",
        "a member of no other",
    ),
    "a role that runs programs": (
        with_sql("GRANT pg_execute_server_program TO bi_reader", "REVOKE pg_execute_server_program FROM bi_reader"),
        "MEG eu, rights",
        "pg_execute_server_program",
        "a member of no other",
    ),
    "a role that turns counters": (
        with_sql(
            "CREATE SEQUENCE counter; GRANT USAGE ON SEQUENCE counter TO bi_reader",
            "DROP SEQUENCE counter",
        ),
        "MEG eu, rights",
        "counter",
        "reader.sql",
    ),
    "patients": (
        with_sql(
            "CREATE TABLE answers (patient_name text); GRANT SELECT ON answers TO PUBLIC",
            "DROP TABLE answers",
        ),
        "MEG eu, private columns",
        "answers.patient_name",
        "PUBLIC",
    ),
    "an index of some of them": (
        with_sql(
            "DROP INDEX megforms_observation_session;"
            "CREATE INDEX some_of_them ON megforms_observation (session_id) WHERE deleted_at IS NOT NULL;"
            "CREATE INDEX another_kind ON megforms_observation USING brin (session_id)",
            "DROP INDEX some_of_them, another_kind;"
            "CREATE INDEX megforms_observation_session ON megforms_observation (session_id)",
        ),
        "MEG eu, index: observations of a session",
        "leads with session_id",
        "(session_id)",
    ),
    "a file that is not there": (
        with_connection("BI_MONGO", extra={"tls": True, "tlsCAFile": "/nowhere.pem"}),
        "MongoDB, connection",
        "driver cannot use this connection",
        "Mend the connection",
    ),
    "e-mail addresses": (
        with_sql("GRANT SELECT ON auth_user TO bi_reader", "REVOKE SELECT ON auth_user FROM bi_reader"),
        "MEG eu, private columns",
        "auth_user.email",
        "reader.sql",
    ),
    "a table that is gone": (
        with_sql(f"ALTER TABLE {TABLE} RENAME TO elsewhere", f"ALTER TABLE elsewhere RENAME TO {TABLE}"),
        "MEG eu, relation session",
        TABLE,
        "include/sql/source/session.sql",
    ),
    "a column of another type": (
        with_sql(
            "ALTER TABLE issues_issue ALTER created_at TYPE timestamp",
            "ALTER TABLE issues_issue ALTER created_at TYPE timestamptz",
        ),
        "MEG eu, relation issue",
        "created_at is timestamp, not timestamptz",
        "include/sql/source/issue.sql",
    ),
    "a column out of reach": (
        with_sql(
            "REVOKE SELECT (platform) ON megforms_auditsession FROM bi_reader",
            "GRANT SELECT (platform) ON megforms_auditsession TO bi_reader",
        ),
        "MEG eu, relation session",
        "permission denied",
        "reader.sql",
    ),
    "no index for chunks": (
        with_sql(
            "DROP INDEX megforms_auditsession_form_submitted;"
            "CREATE INDEX the_wrong_way_round ON megforms_auditsession (submitted_at, form_id)",
            "DROP INDEX the_wrong_way_round;"
            "CREATE INDEX megforms_auditsession_form_submitted ON megforms_auditsession (form_id, submitted_at)",
        ),
        "MEG eu, index: sessions of a form",
        "leads with form_id",
        "(form_id, submitted_at)",
    ),
    "no index for observations": (
        with_sql(
            "DROP INDEX megforms_observation_session",
            "CREATE INDEX megforms_observation_session ON megforms_observation (session_id)",
        ),
        "MEG eu, index: observations of a session",
        "leads with session_id",
        "(session_id)",
    ),
    "MongoDB down": (
        with_connection("BI_MONGO", port=1, extra={"serverSelectionTimeoutMS": 500}),
        "MongoDB, connection",
        "cannot be reached",
        "server is up",
    ),
    "MongoDB's password": (
        with_connection("BI_MONGO", password="wrong"),
        "MongoDB, connection",
        "does not let this account in",
        "login and password",
    ),
    "plaintext to MongoDB": (
        with_connection("BI_MONGO", host="mongo.example.com"),
        "MongoDB, connection",
        "plaintext is refused",
        '"tls": true',
    ),
    "rights that are missing": (
        lambda patient: account(patient, [{"role": "readWrite", "db": DATABASE}]),
        "MongoDB, rights: enough",
        "insert on bi_staging",
        "role.json",
    ),
    "rights elsewhere": (
        lambda patient: account(patient, ["biPipeline", {"role": "read", "db": "others"}]),
        "MongoDB, rights: no more",
        "others",
        "role.json",
    ),
    "rights everywhere": (
        lambda patient: account(patient, ["root"]),
        "MongoDB, rights: no more",
        "the whole cluster",
        "role.json",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_its_cure(patient: Patient, store: Store, name: str) -> None:
    assert store.live.name == DATABASE
    broken, subject, found, cure = BROKEN[name]
    with broken(patient):
        findings = failed(patient.examine())
    if name in ("a role that writes", "e-mail addresses", "a column out of reach", "a role that may become another"):
        mended_rights(patient)
    assert subject in findings
    assert found in findings[subject].found
    assert cure in findings[subject].cure
    others = {each.split(",")[0] for each in findings} - {subject.split(",")[0]}
    roles_are_the_servers = ("a role that may do anything", "a role that runs programs")
    assert others <= {"MEG uk"} if name in roles_are_the_servers else not others
    assert failed(patient.examine()) == {}


def test_the_role_that_everyone_gives_works_and_is_told_to_be_wider_than_needed(patient: Patient, store: Store) -> None:
    assert store.live.name == DATABASE
    wide = [{"role": "readWrite", "db": name} for name in (DATABASE, f"{DATABASE}_staging")]
    with account(patient, wide):
        findings = patient.examine()
    assert failed(findings) == {}
    [warned] = [each for each in findings if each.check == "rights: narrow"]
    assert "dropCollection" in warned.found


def test_what_the_role_may_read_beyond_what_is_needed_is_a_warning(patient: Patient, store: Store) -> None:
    assert store.live.name == DATABASE
    with sql(patient, "CREATE TABLE notes (text text); GRANT SELECT ON notes TO bi_reader", "DROP TABLE notes"):
        findings = patient.examine()
    assert failed(findings) == {}
    [warned] = [each for each in findings if each.check == "columns"]
    assert "notes.text" in warned.found


def test_a_server_that_does_not_tell_which_it_is_is_a_warning(patient: Patient, store: Store) -> None:
    assert store.live.name == DATABASE
    function = "EXECUTE ON FUNCTION pg_control_system()"
    with sql(patient, f"REVOKE {function} FROM PUBLIC", f"GRANT {function} TO PUBLIC"):
        findings = patient.examine()
    assert failed(findings) == {}
    [warned] = [each for each in findings if each.check == "a database of its own" and each.subject == "MEG eu"]
    assert warned.verdict is Verdict.WARNING


def test_a_role_for_any_database_is_too_wide_and_not_too_narrow(patient: Patient, store: Store) -> None:
    assert store.live.name == DATABASE
    with account(patient, ["readWriteAnyDatabase"]):
        findings = failed(patient.examine())
    assert list(findings) == ["MongoDB, rights: no more"]
    assert "every database" in findings["MongoDB, rights: no more"].found


def test_a_clock_that_is_wrong_is_told() -> None:
    now = utc(2026, 11, 1)
    assert clock_finding("MEG eu", now, now + timedelta(seconds=8), now).verdict is Verdict.OK
    wrong = clock_finding("MEG eu", now, now - timedelta(seconds=95), now)
    assert (wrong.verdict, wrong.found) == (Verdict.FAILED, "95.0 s behind this machine's")


def test_a_setting_that_keeps_the_jobs_from_running_is_a_warning(patient: Patient, store: Store) -> None:
    assert store.live.name == DATABASE
    [warned] = [each for each in patient.examine(BI_AGGREGATE="off") if each.subject == "settings" and each.cure]
    assert warned.verdict is Verdict.WARNING
    assert "BI_AGGREGATE=1" in warned.cure


def test_pseudonyms_without_a_key_are_told(patient: Patient, store: Store) -> None:
    assert store.live.name == DATABASE
    findings = failed(patient.examine(BI_PSEUDONYMISE="uk"))
    assert list(findings) == ["MEG uk, pseudonyms"]
    assert "AIRFLOW_CONN_BI_PSEUDONYMS" in findings["MEG uk, pseudonyms"].cure


def test_the_contract_covers_every_relation() -> None:
    assert {path.stem for path in (include_folder() / "sql" / "source").iterdir()} == set(RELATIONS)


def test_the_role_reads_every_column_that_is_granted_and_needs_each(patient: Patient, store: Store) -> None:
    """Taking any one column away must be noticed, or it need not have been granted."""
    assert store.live.name == DATABASE
    granted = patient.meg.execute(
        "SELECT table_name, column_name FROM information_schema.column_privileges WHERE grantee = 'bi_reader'"
    ).fetchall()
    assert len(granted) > 70
    reader = reference.READER
    needless = []
    with psycopg.connect(**connection_of(patient, "meg_eu"), autocommit=True) as meg:
        relations = [render(f"source/{name}.sql") for name in RELATIONS]
        for table, column in granted:
            patient.meg.execute(f"REVOKE SELECT ({column}) ON {table} FROM {reader}")
            if all(can_be_read(meg, relation) for relation in relations):
                needless.append(f"{table}.{column}")
            patient.meg.execute(f"GRANT SELECT ({column}) ON {table} TO {reader}")
        assert all(can_be_read(meg, relation) for relation in relations)
    assert needless == []


def connection_of(patient: Patient, database: str) -> dict[str, Any]:
    pg = patient.servers.postgres
    return {
        "host": pg.host,
        "port": pg.port,
        "dbname": database,
        "user": reference.READER,
        "password": patient.servers.secret["reader"],
    }


def can_be_read(meg: psycopg.Connection[Any], relation: str) -> bool:
    try:
        meg.execute(f"EXPLAIN SELECT * FROM ({relation}) AS relation")
        meg.execute(f"SELECT * FROM ({relation}) AS relation LIMIT 0")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True
