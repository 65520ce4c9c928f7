"""Tests that the doctor passes the embedded stack, and reports each problem with a hint."""

from __future__ import annotations

import json
import platform
import shlex
from datetime import datetime, timedelta, timezone
from importlib import metadata

import pytest

from bi_ops.catalog.jobs import get_job
from bi_ops.catalog.slices import Slice
from bi_ops.catalog.sql_templates import include_dir
from bi_ops.doctor.deployment_checks import DEPLOYMENTS
from bi_ops.doctor.meg_checks import check_clock
from bi_ops.doctor.results import Finding, Status, format_report
from bi_ops.errors import StaleLoadError
from bi_ops.load.ledger import LedgerEntry
from bi_ops.load.publish import publish
from bi_ops.load.staged_loads import LoadStates
from bi_ops.mongo.store import Store
from dev.embedded_stack import LIVE_DATABASE
from tests.doctor.doctor_scenarios import SCENARIOS, DoctorTarget, account, failed, sql
from tests.load_helpers import monthly_slice, stage_documents
from tests.meg_factory import utc


def test_doctor_passes_embedded_stack(target: DoctorTarget, store: Store) -> None:
    """Only the reports' indexes are missing on the embedded stack."""
    assert store.live.list_collection_names() == []
    findings = target.run_checks()
    assert failed(findings) == {}
    assert [finding.check for finding in findings if finding.status is Status.WARNING] == ["indexes"]
    assert len(findings) > 25
    assert store.live.list_collection_names() == store.client[f"{LIVE_DATABASE}_staging"].list_collection_names() == []
    text = format_report(findings)
    assert not [secret for secret in target.servers.secret.values() if secret in text]
    assert "required columns" in text


@pytest.mark.usefixtures("store")
def test_doctor_finds_recommended_indexes(target: DoctorTarget) -> None:
    """Recommended indexes that exist are recognised."""
    recommended = json.loads((include_dir() / "mongo" / "indexes.json").read_text())
    with target.servers.mongo_admin.client() as admin:
        for collection, indexes in recommended.items():
            for index in indexes:
                admin[LIVE_DATABASE][collection].create_index(list(index["key"].items()), name=index["name"])
        assert {finding.status for finding in target.run_checks()} == {Status.OK}
        admin.drop_database(LIVE_DATABASE)


def restore_privileges(target: DoctorTarget) -> None:
    target.meg.execute((include_dir() / "meg" / "reader_role.sql").read_bytes())


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", SCENARIOS)
def test_doctor_names_problem_with_hint(target: DoctorTarget, name: str) -> None:
    """Each problem is reported with a hint, and nothing else is reported."""
    break_target, subject, actual, hint = SCENARIOS[name]
    with break_target(target):
        findings = failed(target.run_checks())
    if name in ("a role that writes", "e-mail addresses", "a column out of reach", "a role that may become another"):
        restore_privileges(target)
    assert subject in findings
    assert actual in f"{findings[subject].message} {findings[subject].actual}"
    assert findings[subject].expected
    assert hint in findings[subject].hint
    other_subjects = {title.split(",")[0] for title in findings} - {subject.split(",")[0]}
    server_roles = ("a role that may do anything", "a role that runs programs")
    assert other_subjects <= {"MEG uk"} if name in server_roles else not other_subjects
    assert failed(target.run_checks()) == {}


@pytest.mark.usefixtures("store")
def test_doctor_warns_of_read_write_role(target: DoctorTarget) -> None:
    """The built-in readWrite role works and is reported as too wide."""
    roles = [{"role": "readWrite", "db": name} for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging")]
    with account(target, roles):
        findings = target.run_checks()
    assert failed(findings) == {}
    [warning] = [finding for finding in findings if finding.check == "excess privileges"]
    assert "dropCollection" in warning.message


@pytest.mark.usefixtures("store")
def test_doctor_warns_of_extra_columns(target: DoctorTarget) -> None:
    """Columns that no job needs are a warning."""
    with sql(target, "CREATE TABLE notes (text text); GRANT SELECT ON notes TO bi_reader", "DROP TABLE notes"):
        findings = target.run_checks()
    assert failed(findings) == {}
    [warning] = [finding for finding in findings if finding.check == "excess columns"]
    assert "notes.text" in warning.message


@pytest.mark.usefixtures("store")
def test_doctor_warns_of_unidentified_server(target: DoctorTarget) -> None:
    """A server that hides its identity is a warning."""
    function = "EXECUTE ON FUNCTION pg_control_system()"
    with sql(target, f"REVOKE {function} FROM PUBLIC", f"GRANT {function} TO PUBLIC"):
        findings = target.run_checks()
    assert failed(findings) == {}
    [warning] = [
        finding for finding in findings if finding.check == "distinct database" and finding.subject == "MEG eu"
    ]
    assert warning.status is Status.WARNING


@pytest.mark.usefixtures("store")
def test_doctor_reports_role_on_any_database(target: DoctorTarget) -> None:
    """A role on any database is too wide, and not too narrow."""
    with account(target, ["readWriteAnyDatabase"]):
        findings = failed(target.run_checks())
    assert list(findings) == ["MongoDB, privileges elsewhere"]
    assert "every database" in findings["MongoDB, privileges elsewhere"].message


def test_doctor_reports_clock_skew() -> None:
    """A wrong clock is reported."""
    now = utc(2026, 11, 1)
    assert check_clock("MEG eu", now, now + timedelta(seconds=8), now).status is Status.OK
    finding = check_clock("MEG eu", now, now - timedelta(seconds=95), now)
    assert (finding.status, finding.message) == (Status.FAILED, "95.0 s behind this machine's clock")


@pytest.mark.usefixtures("store")
def test_doctor_warns_of_closed_gate(target: DoctorTarget) -> None:
    """BI_AGGREGATE off is a warning."""
    [warning] = [
        finding for finding in target.run_checks(BI_AGGREGATE="off") if finding.subject == "settings" and finding.hint
    ]
    assert warning.status is Status.WARNING
    assert "BI_AGGREGATE=1" in warning.hint


@pytest.mark.usefixtures("store")
def test_doctor_warns_of_unlisted_connection(target: DoctorTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of a region that the settings do not name is a warning."""
    monkeypatch.setenv("AIRFLOW_CONN_MEG_AU", "postgres://au.example.com/meg")
    findings = warnings(target.run_checks())
    assert list(findings) == ["unlisted connections"]
    assert findings["unlisted connections"].message.endswith(": meg_au")
    assert "MEG_REGIONS" in findings["unlisted connections"].hint
    assert warnings(target.run_checks(MEG_REGIONS="eu,uk,au")) == {}


@pytest.mark.usefixtures("store")
def test_doctor_reports_missing_connection(target: DoctorTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region of the settings without a connection is a failure."""
    monkeypatch.delenv("AIRFLOW_CONN_MEG_UK")
    findings = failed(target.run_checks())
    assert list(findings) == ["MEG uk, connection"]
    assert findings["MEG uk, connection"].message == "Airflow has no such connection"
    assert "AIRFLOW_CONN_MEG_UK" in findings["MEG uk, connection"].hint


@pytest.mark.usefixtures("store")
def test_doctor_reports_missing_pseudonym_key(target: DoctorTarget) -> None:
    """Pseudonyms without a key are reported."""
    findings = failed(target.run_checks(BI_PSEUDONYMISE="uk"))
    assert list(findings) == ["MEG uk, pseudonym key"]
    assert "AIRFLOW_CONN_BI_PSEUDONYMS" in findings["MEG uk, pseudonym key"].hint


@pytest.mark.usefixtures("store")
def test_doctor_shows_network_addresses(target: DoctorTarget) -> None:
    """Each server's own view of the client's address is shown."""
    messages = messages_of(target, "network address")
    [(address,)] = target.meg.execute("SELECT host(inet_client_addr())").fetchall()
    assert messages["MEG eu"] == messages["MEG uk"] == f"the server sees {address}"
    assert messages["MongoDB"] == "the server sees 127.0.0.1"


@pytest.mark.usefixtures("store")
def test_doctor_shows_server_time_zone(target: DoctorTarget) -> None:
    """The time zone of the periods is there, and the server's own is shown as it is set."""
    with sql(target, "ALTER ROLE bi_reader SET timezone = 'Asia/Tokyo'", "ALTER ROLE bi_reader RESET timezone"):
        messages = messages_of(target, "time zone", BI_TIMEZONE="Europe/Dublin")
    assert messages["MEG eu"] == "the server has Europe/Dublin; its own is Asia/Tokyo"


@pytest.mark.usefixtures("store")
def test_doctor_recognises_deployment(target: DoctorTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each platform's variable counts before the variables of the platforms that it is built on."""
    for variable, _, _ in DEPLOYMENTS:
        monkeypatch.delenv(variable, raising=False)
    assert messages_of(target, "deployment")["Airflow"].startswith("none of ")
    monkeypatch.setenv("AWS_EXECUTION_ENV", "AWS_ECS_FARGATE")
    assert messages_of(target, "deployment")["Airflow"].startswith("none of ")
    for variable, start, name in reversed(DEPLOYMENTS):
        monkeypatch.setenv(variable, f"{start}1")
        assert messages_of(target, "deployment") == {"Airflow": f"{name} (by {variable})"}


@pytest.mark.usefixtures("store")
def test_doctor_shows_airflow_facts(target: DoctorTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions, executor and secrets backend are shown, but not the backend's arguments."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    without = {finding.check: finding.message for finding in target.run_checks() if finding.subject == "Airflow"}
    assert without["executor"] == "CeleryExecutor"
    assert without["secrets backend"] == "the environment, then Airflow's database"
    for part in ("Airflow", "Python", "postgres", "mongo", "standard"):
        version = platform.python_version() if part == "Python" else metadata.version(PACKAGES[part])
        assert f"{part} {version}" in without["versions"]
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", "airflow.secrets.local_filesystem.LocalFilesystemBackend")
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", '{"connections_file_path": "/secret-path"}')
    findings = target.run_checks()
    [backend] = [finding.message for finding in findings if finding.check == "secrets backend"]
    assert backend == "LocalFilesystemBackend, then the environment, then Airflow's database"
    assert "secret-path" not in format_report(findings)


PACKAGES = {
    "Airflow": "apache-airflow-core",
    **{name: f"apache-airflow-providers-{name}" for name in ("postgres", "mongo", "standard")},
}


def messages_of(target: DoctorTarget, check: str, **settings: str) -> dict[str, str]:
    """The messages of a check by subject."""
    return {finding.subject: finding.message for finding in target.run_checks(**settings) if finding.check == check}


STAGING = f"{LIVE_DATABASE}_staging"


def warnings(findings: list[Finding]) -> dict[str, Finding]:
    by_check = {finding.check: finding for finding in findings if finding.status is Status.WARNING}
    return {check: finding for check, finding in by_check.items() if check != "indexes"}


def test_doctor_warns_of_staging_ttl_index(target: DoctorTarget, store: Store) -> None:
    """Another lifetime and a missing index are warnings; the pipeline's own index is right."""
    store.ensure_staging_collections("monthly_submissions")
    store.ensure_staging_collections("top_users")
    assert warnings(target.run_checks()) == {}
    week = {"keyPattern": {"staged_at": 1}, "expireAfterSeconds": 7 * 24 * 3600}
    with target.servers.mongo_admin.client() as admin:
        admin[STAGING].command("collMod", "monthly_submissions", index=week)
        findings = warnings(target.run_checks())
        assert list(findings) == ["staging TTL index"]
        assert "from monthly_submissions after 7 days" in findings["staging TTL index"].message
        admin[STAGING].command("collMod", "monthly_submissions", index={**week, "expireAfterSeconds": 30 * 24 * 3600})
        admin[STAGING]["top_users"].drop_index("staged_at_ttl")
        admin[STAGING]["top_users"].create_index("staged_at", name="staged_at_1")
    findings = warnings(target.run_checks())
    assert list(findings) == ["staging TTL index"]
    assert "top_users has no TTL index" in findings["staging TTL index"].message
    assert store.live.list_collection_names() == []


def test_doctor_warns_of_unlisted_region(target: DoctorTarget, store: Store) -> None:
    """The command removes the region's documents and its rows of the ledger, and nothing else."""
    for region in ("eu", "old_eu"):
        publish(store, stage_documents(store, monthly_slice(region=region), {1: 1, 2: 2}), max_shrink=0.5)
    findings = warnings(target.run_checks())
    assert list(findings) == ["published data: region old_eu"]
    assert "2 documents" in findings["published data: region old_eu"].message
    script = shlex.split(findings["published data: region old_eu"].hint.partition("Command: ")[2])[-1]
    for name in json.loads(script[script.index("[") : script.index("]") + 1]):
        store.live[name].delete_many({"region": "old_eu"})
    assert warnings(target.run_checks()) == {}
    assert store.live["monthly_submissions"].count_documents({}) == 2


def test_doctor_warns_of_mixed_time_zones(target: DoctorTarget, store: Store) -> None:
    publish(store, stage_documents(store, monthly_slice(), {1: 1}, timezone="Europe/Kyiv"), max_shrink=0.5)
    findings = warnings(target.run_checks())
    assert list(findings) == ["published data: monthly_submissions eu"]
    assert "Europe/Kyiv: 2026-10" in findings["published data: monthly_submissions eu"].message
    assert "airflow dags trigger bi_monthly" in findings["published data: monthly_submissions eu"].hint
    assert warnings(target.run_checks(BI_TIMEZONE="Europe/Kyiv")) == {}


def test_doctor_warns_of_unfinished_publish(target: DoctorTarget, store: Store) -> None:
    """The ledger row of a publish that stopped between two transactions is reported."""
    load = stage_documents(store, monthly_slice(), dict.fromkeys(range(300), 1))
    entry = LedgerEntry(LoadStates(store).staged(load), load.started_at, load.started_at, 0, forced=False)
    with store.client.start_session() as session:
        entry.write_progress(store, 100, session)
    findings = warnings(target.run_checks())
    assert list(findings) == ["published data: monthly_submissions eu 2026-10"]
    assert "100 of 300 documents are new" in findings["published data: monthly_submissions eu 2026-10"].message
    publish(store, load, max_shrink=0.5)
    assert warnings(target.run_checks()) == {}


def test_doctor_reports_future_snapshot(target: DoctorTarget, store: Store) -> None:
    """It blocks every later load until one with force replaces it."""
    now = datetime.now(timezone.utc)
    publish(store, stage_documents(store, snapshot(now + timedelta(days=1)), {1: 1}), max_shrink=0.5)
    with pytest.raises(StaleLoadError):
        publish(store, stage_documents(store, snapshot(now), {1: 1}), max_shrink=0.5)
    findings = failed(target.run_checks())
    [finding] = findings.values()
    assert list(findings) == ["MongoDB, published data: forms eu"]
    assert "an as-of in the future" in finding.message
    program, _, _, dag, _, conf = shlex.split(finding.hint.partition("Command: ")[2])
    assert (program, dag) == ("airflow", "bi_weekly")
    assert json.loads(conf) == {"jobs": ["forms"], "regions": ["eu"], "force": True}
    publish(store, stage_documents(store, snapshot(now), {1: 1}), max_shrink=0.5, force=True)
    assert failed(target.run_checks()) == {}


def test_doctor_reports_future_reading(target: DoctorTarget, store: Store) -> None:
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    publish(store, stage_documents(store, monthly_slice("2025-01"), {1: 1}, read_at=tomorrow), max_shrink=0.5)
    findings = failed(target.run_checks())
    assert "read from MEG in the future" in findings["MongoDB, published data: monthly_submissions eu 2025-01"].message


@pytest.mark.usefixtures("store")
def test_doctor_warns_of_unreadable_collections(target: DoctorTarget) -> None:
    """If the account may not read the collections, only the check of its privileges fails."""
    with account(target, [{"role": "readWrite", "db": STAGING}]):
        findings = target.run_checks()
    assert "MongoDB, privileges" in failed(findings)
    assert {"collections", "published data", "indexes"} <= {
        finding.check for finding in findings if finding.status is Status.WARNING and "not checked" in finding.message
    }


def snapshot(as_of: datetime) -> Slice:
    return Slice(get_job("forms"), "eu", as_of)
