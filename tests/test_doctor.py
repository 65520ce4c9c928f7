"""The doctor passes the embedded stack, and names each thing that is broken with its cure."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bi_ops.doctor.findings import Finding, Verdict, report
from bi_ops.doctor.meg import clock_finding
from bi_ops.errors import NewerSliceLiveError
from bi_ops.jobs import job_named
from bi_ops.ledger import LedgerEntry
from bi_ops.loads import LoadRegister
from bi_ops.publish import publish
from bi_ops.relations import KEYS, RELATIONS
from bi_ops.slices import Slice
from bi_ops.store import Store
from bi_ops.templates import include_folder, render
from dev import meg as reference
from dev.stack import DATABASE, Databases
from tests.ailments import BROKEN, Patient, account, sql
from tests.loads import month, stage_documents
from tests.megs import MegRows, utc


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


def mended_rights(patient: Patient) -> None:
    patient.meg.execute((include_folder() / "meg" / "reader.sql").read_bytes())


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


STAGING = f"{DATABASE}_staging"


def warnings(findings: list[Finding]) -> dict[str, Finding]:
    named = {each.check: each for each in findings if each.verdict is Verdict.WARNING}
    return {check: each for check, each in named.items() if check != "indexes for the reports"}


def test_ttl_index_of_staging_is_checked(patient: Patient, store: Store) -> None:
    """Another lifetime and a missing index are warnings; the pipeline's own index is right."""
    store.prepare_staging("monthly_submissions")
    store.prepare_staging("top_users")
    assert warnings(patient.examine()) == {}
    week = {"keyPattern": {"staged_at": 1}, "expireAfterSeconds": 7 * 24 * 3600}
    with patient.servers.mongo_admin.client() as admin:
        admin[STAGING].command("collMod", "monthly_submissions", index=week)
        found = warnings(patient.examine())
        assert list(found) == ["staged data"]
        assert "from monthly_submissions after 7 days" in found["staged data"].found
        admin[STAGING].command("collMod", "monthly_submissions", index={**week, "expireAfterSeconds": 30 * 24 * 3600})
        admin[STAGING]["top_users"].drop_index("staged_at_ttl")
        admin[STAGING]["top_users"].create_index("staged_at", name="staged_at_1")
    found = warnings(patient.examine())
    assert list(found) == ["staged data"]
    assert "top_users has no TTL index" in found["staged data"].found
    assert store.live.list_collection_names() == []


def test_region_out_of_the_settings_is_named(patient: Patient, store: Store) -> None:
    """The command removes the region's documents and its rows of the ledger, and nothing else."""
    for region in ("eu", "old_eu"):
        publish(store, stage_documents(store, month(region=region), {1: 1, 2: 2}), max_shrink=0.5)
    found = warnings(patient.examine())
    assert list(found) == ["figures: region old_eu"]
    assert "2 documents" in found["figures: region old_eu"].found
    script = shlex.split(found["figures: region old_eu"].cure.partition("Command: ")[2])[-1]
    for name in json.loads(script[script.index("[") : script.index("]") + 1]):
        store.live[name].delete_many({"region": "old_eu"})
    assert warnings(patient.examine()) == {}
    assert store.live["monthly_submissions"].count_documents({}) == 2


def test_mixed_time_zones_are_a_warning(patient: Patient, store: Store) -> None:
    publish(store, stage_documents(store, month(), {1: 1}, timezone="Europe/Kyiv"), max_shrink=0.5)
    found = warnings(patient.examine())
    assert list(found) == ["figures: monthly_submissions eu"]
    assert "Europe/Kyiv: 2026-10" in found["figures: monthly_submissions eu"].found
    assert "airflow dags trigger bi_monthly" in found["figures: monthly_submissions eu"].cure
    assert warnings(patient.examine(BI_TIMEZONE="Europe/Kyiv")) == {}


def test_unfinished_publish_is_a_warning(patient: Patient, store: Store) -> None:
    """A publish that stopped between two transactions, as its ledger row says."""
    load = stage_documents(store, month(), dict.fromkeys(range(300), 1))
    entry = LedgerEntry(LoadRegister(store).staged(load), load.started_at, load.started_at, 0, forced=False)
    with store.client.start_session() as session:
        entry.keep_progress(store, 100, session)
    found = warnings(patient.examine())
    assert list(found) == ["figures: monthly_submissions eu 2026-10"]
    assert "100 of 300 documents are new" in found["figures: monthly_submissions eu 2026-10"].found
    publish(store, load, max_shrink=0.5)
    assert warnings(patient.examine()) == {}


def test_snapshot_of_the_future_is_named(patient: Patient, store: Store) -> None:
    """It keeps every later load out, until one with force replaces it."""
    now = datetime.now(timezone.utc)
    publish(store, stage_documents(store, snapshot(now + timedelta(days=1)), {1: 1}), max_shrink=0.5)
    with pytest.raises(NewerSliceLiveError):
        publish(store, stage_documents(store, snapshot(now), {1: 1}), max_shrink=0.5)
    findings = failed(patient.examine())
    [named] = findings.values()
    assert list(findings) == ["MongoDB, figures: forms eu"]
    assert "an as-of in the future" in named.found
    program, _, _, dag, _, conf = shlex.split(named.cure.partition("Command: ")[2])
    assert (program, dag) == ("airflow", "bi_weekly")
    assert json.loads(conf) == {"jobs": ["forms"], "regions": ["eu"], "force": True}
    publish(store, stage_documents(store, snapshot(now), {1: 1}), max_shrink=0.5, force=True)
    assert failed(patient.examine()) == {}


def test_reading_of_the_future_is_named(patient: Patient, store: Store) -> None:
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    publish(store, stage_documents(store, month("2025-01"), {1: 1}, read_at=tomorrow), max_shrink=0.5)
    findings = failed(patient.examine())
    assert "read from MEG in the future" in findings["MongoDB, figures: monthly_submissions eu 2025-01"].found


def test_unreadable_collections_are_a_warning(patient: Patient, store: Store) -> None:
    """An account that may not read the collections breaks no check but that of its rights."""
    assert store.live.name == DATABASE
    with account(patient, [{"role": "readWrite", "db": STAGING}]):
        findings = patient.examine()
    assert "MongoDB, rights: enough" in failed(findings)
    assert {"collections", "figures", "indexes for the reports"} <= {
        each.check for each in findings if each.verdict is Verdict.WARNING and "not checked" in each.found
    }


def snapshot(as_of: datetime) -> Slice:
    return Slice(job_named("forms"), "eu", as_of)


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


@pytest.fixture
def edit_relation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Edits a file of include/sql/source/, in a copy of include/ that is used until the test's end."""
    copy = tmp_path / "include"
    shutil.copytree(include_folder(), copy)
    monkeypatch.setattr("bi_ops.templates.include_folder", lambda: copy)

    def edit(name: str, old: str, new: str) -> None:
        file = copy / "sql" / "source" / f"{name}.sql"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return edit


def keys(patient: Patient) -> dict[str, Finding]:
    return {each.check: each for each in patient.examine() if each.check.startswith("key") and "eu" in each.subject}


def test_key_of_every_relation_is_declared() -> None:
    """Each key is a column of its relation."""
    assert set(KEYS) == set(RELATIONS)
    assert all(key in RELATIONS[name] for name, key in KEYS.items())


def test_doctor_shows_rows_of_relations(patient: Patient, store: Store, rows: MegRows) -> None:
    """The rows of each relation are shown beside those of its table, which has more."""
    assert store.live.name == DATABASE
    rows.many_forms(30)
    rows.form(rows.institution(is_demo=True))
    patient.meg.execute("ANALYZE")
    findings = keys(patient)
    assert {each.verdict for each in findings.values()} == {Verdict.OK}
    assert len(findings) == len(RELATIONS)
    assert findings["key of form"].found == "form_id is unique; 30 rows, of about 31 in megforms_auditform"
    assert findings["key of submission"].found.endswith("30 rows, of about 30 in megforms_observation")


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
def test_doctor_finds_relation_with_doubled_rows(
    patient: Patient,
    store: Store,
    rows: MegRows,
    edit_relation: Callable[[str, str, str], None],
    name: str,
    old: str,
    new: str,
) -> None:
    """A join that gives a row more than once is found, with its file, before it inflates a count."""
    assert store.live.name == DATABASE
    form = rows.form(rows.institution())
    rows.form(rows.institution())
    rows.session(form, utc(2026, 10, 5), observations=3)
    assert failed(patient.examine()) == {}
    edit_relation(name, old, new)
    finding = failed(patient.examine())[f"MEG eu, key of {name}"]
    assert "more than once, up to" in finding.found
    assert f"include/sql/source/{name}.sql" in finding.cure


def test_doctor_finds_relation_with_null_key(
    patient: Patient, store: Store, rows: MegRows, edit_relation: Callable[[str, str, str], None]
) -> None:
    """A row without a key, as an outer join gives it, is found too."""
    assert store.live.name == DATABASE
    rows.institution()
    edit_relation("form", "FROM megforms_auditform AS f\nJOIN", "FROM megforms_auditform AS f\nRIGHT JOIN")
    assert "form_id is null" in failed(patient.examine())["MEG eu, key of form"].found


def test_doctor_warns_of_key_that_takes_too_long(
    patient: Patient, store: Store, rows: MegRows, edit_relation: Callable[[str, str, str], None]
) -> None:
    """A relation too large to be counted in half a minute is a warning, and every other check is made."""
    assert store.live.name == DATABASE
    rows.institution()
    edit_relation("institution", "WHERE NOT i.is_demo", "WHERE NOT i.is_demo AND pg_sleep(600) IS NOT NULL")
    findings = keys(patient)
    assert findings["key of institution"].verdict is Verdict.WARNING
    assert "not checked within 30 s" in findings["key of institution"].found
    assert findings["key of ward"].verdict is Verdict.OK


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
