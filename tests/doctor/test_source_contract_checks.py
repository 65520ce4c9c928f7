"""Tests the doctor's checks of the source contract: the columns of each relation, and one row for each key."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bi_ops.catalog.source_contract import KEYS, SOURCE_CONTRACT
from bi_ops.catalog.sql_templates import include_dir, render_sql
from bi_ops.doctor.results import Finding, Status
from dev import demo_meg
from tests.doctor.doctor_scenarios import DoctorTarget, failed
from tests.meg_factory import MegFactory, utc


def test_source_contract_is_complete() -> None:
    """The contract covers every relation."""
    assert {path.stem for path in (include_dir() / "sql" / "source").iterdir()} == set(SOURCE_CONTRACT)


@pytest.mark.usefixtures("store")
def test_reader_role_grants_needed_columns(target: DoctorTarget) -> None:
    """Each granted column is needed: without it, a relation cannot be read."""
    granted = target.meg.execute(
        "SELECT table_name, column_name FROM information_schema.column_privileges WHERE grantee = 'bi_reader'"
    ).fetchall()
    assert len(granted) > 70
    reader = demo_meg.READER_ROLE
    unneeded = []
    with psycopg.connect(**reader_connection(target, "meg_eu"), autocommit=True) as meg:
        relations = [render_sql(f"source/{name}.sql") for name in SOURCE_CONTRACT]
        for table, column in granted:
            target.meg.execute(f"REVOKE SELECT ({column}) ON {table} FROM {reader}")
            if all(is_readable(meg, relation) for relation in relations):
                unneeded.append(f"{table}.{column}")
            target.meg.execute(f"GRANT SELECT ({column}) ON {table} TO {reader}")
        assert all(is_readable(meg, relation) for relation in relations)
    assert unneeded == []


@pytest.fixture
def edit_relation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Edits a file of include/sql/source/ in a copy of include/, which is used until the test ends."""
    copy = tmp_path / "include"
    shutil.copytree(include_dir(), copy)
    monkeypatch.setattr("bi_ops.catalog.sql_templates.include_dir", lambda: copy)

    def edit(name: str, old: str, new: str) -> None:
        file = copy / "sql" / "source" / f"{name}.sql"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return edit


def key_findings(target: DoctorTarget) -> dict[str, Finding]:
    return {
        finding.check: finding
        for finding in target.run_checks(regions=("eu",))
        if finding.check.startswith("unique key")
    }


def test_relation_keys_are_declared() -> None:
    """Each key is a column of its relation."""
    assert set(KEYS) == set(SOURCE_CONTRACT)
    assert all(key in SOURCE_CONTRACT[name] for name, key in KEYS.items())


@pytest.mark.usefixtures("store")
def test_doctor_shows_relation_rows(target: DoctorTarget, meg_factory: MegFactory) -> None:
    """The number of rows of each relation is shown next to that of its table."""
    meg_factory.bulk_forms(30)
    meg_factory.form(meg_factory.institution(is_demo=True))
    target.meg.execute("ANALYZE")
    findings = key_findings(target)
    assert {finding.status for finding in findings.values()} == {Status.OK}
    assert len(findings) == len(SOURCE_CONTRACT)
    assert findings["unique key: form"].message == "form_id is unique; 30 rows, of about 31 in megforms_auditform"
    assert findings["unique key: submission"].message.endswith("30 rows, of about 30 in megforms_observation")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (
            "session",
            "LEFT JOIN megforms_ward AS w",
            "JOIN megforms_observation AS o ON o.session_id = s.id LEFT JOIN megforms_ward AS w",
        ),
        ("form", "ON i.id = f.institution_id", "ON true"),
    ],
)
def test_doctor_reports_duplicate_rows(
    target: DoctorTarget,
    meg_factory: MegFactory,
    edit_relation: Callable[[str, str, str], None],
    name: str,
    old: str,
    new: str,
) -> None:
    """A join that duplicates rows is reported with its file."""
    form = meg_factory.form(meg_factory.institution())
    meg_factory.form(meg_factory.institution())
    meg_factory.session(form, utc(2026, 10, 5), observations=3)
    assert failed(target.run_checks()) == {}
    edit_relation(name, old, new)
    finding = failed(target.run_checks())[f"MEG eu, unique key: {name}"]
    assert "more than once, up to" in finding.message
    assert f"include/sql/source/{name}.sql" in finding.hint


@pytest.mark.usefixtures("store")
def test_doctor_reports_null_key(
    target: DoctorTarget, meg_factory: MegFactory, edit_relation: Callable[[str, str, str], None]
) -> None:
    """A row without a key, such as an outer join returns, is reported."""
    meg_factory.institution()
    edit_relation("form", "FROM megforms_auditform AS f\nJOIN", "FROM megforms_auditform AS f\nRIGHT JOIN")
    assert "form_id is null" in failed(target.run_checks())["MEG eu, unique key: form"].message


@pytest.mark.usefixtures("store")
def test_doctor_warns_of_slow_key_check(
    target: DoctorTarget, meg_factory: MegFactory, edit_relation: Callable[[str, str, str], None]
) -> None:
    """A relation that cannot be counted within 30 s is a warning, and all other checks run."""
    meg_factory.institution()
    edit_relation("institution", "WHERE NOT i.is_demo", "WHERE NOT i.is_demo AND pg_sleep(600) IS NOT NULL")
    findings = key_findings(target)
    assert findings["unique key: institution"].status is Status.WARNING
    assert "not checked within 30 s" in findings["unique key: institution"].message
    assert findings["unique key: ward"].status is Status.OK


def reader_connection(target: DoctorTarget, database: str) -> dict[str, Any]:
    pg = target.servers.postgres
    return {
        "host": pg.host,
        "port": pg.port,
        "dbname": database,
        "user": demo_meg.READER_ROLE,
        "password": target.servers.secret["reader"],
    }


def is_readable(meg: psycopg.Connection[Any], relation: str) -> bool:
    try:
        meg.execute(f"EXPLAIN SELECT * FROM ({relation}) AS relation")
        meg.execute(f"SELECT * FROM ({relation}) AS relation LIMIT 0")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True
