"""Problems of the region eu's MEG, of MongoDB and of their connections, and how to undo each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from bi_ops.airflow import connections
from bi_ops.airflow.airflow_facts import read_airflow_facts
from bi_ops.doctor.results import Finding, Status
from bi_ops.doctor.runner import run_all_checks
from bi_ops.settings import Settings
from dev.embedded_stack import LIVE_DATABASE, WRITER_USER, DatabaseServers


@dataclass
class DoctorTarget:
    """The databases and connections that a scenario breaks.

    Attributes:
        servers: The databases.
        meg: An administrator's connection to the region eu's MEG.
    """

    servers: DatabaseServers
    meg: psycopg.Connection[Any]

    @contextmanager
    def connection(self, name: str, **changed: Any) -> Iterator[None]:
        """Change fields of a connection while the block runs."""
        variable = f"AIRFLOW_CONN_{name}"
        fields = self.servers.connections({"eu": "meg_eu", "uk": "meg_uk"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(variable, json.dumps({**json.loads(fields[variable]), **changed}))
            yield

    def run_checks(self, regions: tuple[str, ...] = ("eu", "uk"), **settings: str) -> list[Finding]:
        environment = {"BI_AGGREGATE": "1", "MEG_REGIONS": "eu,uk", **settings}
        return list(run_all_checks(Settings.from_env(environment), regions, connections, read_airflow_facts()))


def failed(findings: list[Finding]) -> dict[str, Finding]:
    return {f"{finding.subject}, {finding.check}": finding for finding in findings if finding.status is Status.FAILED}


Break = Callable[[DoctorTarget], AbstractContextManager[None]]


@contextmanager
def sql(target: DoctorTarget, break_sql: str, undo_sql: str) -> Iterator[None]:
    target.meg.execute(break_sql)
    try:
        yield
    finally:
        target.meg.execute(undo_sql)


@contextmanager
def account(target: DoctorTarget, roles: list[Any]) -> Iterator[None]:
    """Give the pipeline's MongoDB account these roles while the block runs."""
    with target.servers.mongo_admin.client() as admin:
        admin.admin.command("updateUser", WRITER_USER, roles=roles)
        try:
            yield
        finally:
            admin.admin.command("updateUser", WRITER_USER, roles=["biPipeline"])


@contextmanager
def live_collection(target: DoctorTarget, name: str, **options: Any) -> Iterator[None]:
    """Create a live collection with these options, and drop it after the block."""
    with target.servers.mongo_admin.client() as admin:
        admin[LIVE_DATABASE].create_collection(name, **options)
        try:
            yield
        finally:
            admin.drop_database(LIVE_DATABASE)


def with_collection(name: str, **options: Any) -> Break:
    return lambda target: live_collection(target, name, **options)


def with_sql(break_sql: str, undo_sql: str) -> Break:
    return lambda target: sql(target, break_sql, undo_sql)


def with_connection(name: str, **changed: Any) -> Break:
    return lambda target: target.connection(name, **changed)


TABLE = "megforms_auditsession"
SCENARIOS: dict[str, tuple[Break, str, str, str]] = {
    "region down": (with_connection("MEG_EU", port=1), "MEG eu, connection", "refused", "server is up"),
    "wrong password": (with_connection("MEG_EU", password="wrong"), "MEG eu, connection", "authentication", "Correct"),
    "no such database": (with_connection("MEG_EU", schema="nowhere"), "MEG eu, connection", "nowhere", "Correct"),
    "plaintext to MEG": (with_connection("MEG_EU", host="10.0.0.1"), "MEG eu, connection", "TLS", "verify-full"),
    "one database twice": (
        with_connection("MEG_UK", schema="meg_eu"),
        "MEG uk, distinct database",
        "meg_uk and meg_eu",
        "Correct the connection meg_uk",
    ),
    "a role that writes": (
        with_sql(f"GRANT INSERT ON {TABLE} TO bi_reader", f"REVOKE INSERT ON {TABLE} FROM bi_reader"),
        "MEG eu, privileges",
        TABLE,
        "reader_role.sql",
    ),
    "a role that may do anything": (
        with_sql("ALTER ROLE bi_reader SUPERUSER", "ALTER ROLE bi_reader NOSUPERUSER"),
        "MEG eu, privileges",
        "superuser",
        "reader_role.sql",
    ),
    "a role that may become another": (
        with_sql(
            "CREATE ROLE bi_somebody; GRANT UPDATE ON auth_user TO bi_somebody; GRANT bi_somebody TO bi_reader",
            "DROP OWNED BY bi_somebody; DROP ROLE bi_somebody",
        ),
        "MEG eu, privileges",
        "auth_user",
        "not a member of any other",
    ),
    "a role that runs programs": (
        with_sql("GRANT pg_execute_server_program TO bi_reader", "REVOKE pg_execute_server_program FROM bi_reader"),
        "MEG eu, privileges",
        "pg_execute_server_program",
        "not a member of any other",
    ),
    "a role that turns counters": (
        with_sql(
            "CREATE SEQUENCE counter; GRANT USAGE ON SEQUENCE counter TO bi_reader",
            "DROP SEQUENCE counter",
        ),
        "MEG eu, privileges",
        "counter",
        "reader_role.sql",
    ),
    "patients": (
        with_sql(
            "CREATE TABLE answers (patient_name text); GRANT SELECT ON answers TO PUBLIC",
            "DROP TABLE answers",
        ),
        "MEG eu, personal data access",
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
        "MEG eu, indexes: observations by session",
        "leads with session_id",
        "(session_id)",
    ),
    "a file that is not there": (
        with_connection("BI_MONGO", extra={"tls": True, "tlsCAFile": "/nowhere.pem"}),
        "MongoDB, connection",
        "driver cannot use this connection",
        "Correct the connection",
    ),
    "e-mail addresses": (
        with_sql("GRANT SELECT ON auth_user TO bi_reader", "REVOKE SELECT ON auth_user FROM bi_reader"),
        "MEG eu, personal data access",
        "auth_user.email",
        "reader_role.sql",
    ),
    "a table that is gone": (
        with_sql(f"ALTER TABLE {TABLE} RENAME TO elsewhere", f"ALTER TABLE elsewhere RENAME TO {TABLE}"),
        "MEG eu, required columns: session",
        TABLE,
        "include/sql/source/session.sql",
    ),
    "a column of another type": (
        with_sql(
            "ALTER TABLE issues_issue ALTER created_at TYPE timestamp",
            "ALTER TABLE issues_issue ALTER created_at TYPE timestamptz",
        ),
        "MEG eu, required columns: issue",
        "created_at is timestamp, not timestamptz",
        "include/sql/source/issue.sql",
    ),
    "a column out of reach": (
        with_sql(
            "REVOKE SELECT (platform) ON megforms_auditsession FROM bi_reader",
            "GRANT SELECT (platform) ON megforms_auditsession TO bi_reader",
        ),
        "MEG eu, required columns: session",
        "permission denied",
        "reader_role.sql",
    ),
    "no index for chunks": (
        with_sql(
            "DROP INDEX megforms_auditsession_form_submitted;"
            "CREATE INDEX the_wrong_way_round ON megforms_auditsession (submitted_at, form_id)",
            "DROP INDEX the_wrong_way_round;"
            "CREATE INDEX megforms_auditsession_form_submitted ON megforms_auditsession (form_id, submitted_at)",
        ),
        "MEG eu, indexes: sessions by form",
        "leads with form_id",
        "(form_id, submitted_at)",
    ),
    "no index for observations": (
        with_sql(
            "DROP INDEX megforms_observation_session",
            "CREATE INDEX megforms_observation_session ON megforms_observation (session_id)",
        ),
        "MEG eu, indexes: observations by session",
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
        "authentication to MongoDB failed",
        "login and password",
    ),
    "plaintext to MongoDB": (
        with_connection("BI_MONGO", host="mongo.example.com"),
        "MongoDB, connection",
        "TLS is required",
        '"tls": true',
    ),
    "rights that are missing": (
        lambda target: account(target, [{"role": "readWrite", "db": LIVE_DATABASE}]),
        "MongoDB, privileges",
        "insert on bi_staging",
        "role.json",
    ),
    "rights elsewhere": (
        lambda target: account(target, ["biPipeline", {"role": "read", "db": "others"}]),
        "MongoDB, privileges elsewhere",
        "others",
        "role.json",
    ),
    "rights everywhere": (
        lambda target: account(target, ["root"]),
        "MongoDB, privileges elsewhere",
        "the whole cluster",
        "role.json",
    ),
    "a collection with a collation": (
        with_collection("monthly_submissions", collation={"locale": "en", "strength": 2}),
        "MongoDB, collections",
        "the live collection monthly_submissions is a collection with the default collation en",
        "drop monthly_submissions",
    ),
    "a time-series collection": (
        with_collection("top_users", timeseries={"timeField": "loaded_at"}),
        "MongoDB, collections",
        "the live collection top_users is a time-series collection",
        "drop top_users",
    ),
    "a capped collection": (
        with_collection("institutions", capped=True, size=4096),
        "MongoDB, collections",
        "the live collection institutions is a capped collection",
        "drop institutions",
    ),
    "a view": (
        with_collection("forms", viewOn="others", pipeline=[]),
        "MongoDB, collections",
        "the live collection forms is a view",
        "drop forms",
    ),
    "a ledger that is capped": (
        with_collection("bi_loads", capped=True, size=4096),
        "MongoDB, collections",
        "the live collection bi_loads is a capped collection",
        "drop bi_loads",
    ),
}
