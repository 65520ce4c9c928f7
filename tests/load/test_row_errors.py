"""Tests the errors for rows of MEG that cannot become documents, and that nothing of such a load is published."""

from __future__ import annotations

from typing import Any

import pytest

from bi_ops.airflow.base_operator import load_settings
from bi_ops.airflow.connections import open_meg
from bi_ops.catalog.jobs import JOBS, get_job
from bi_ops.catalog.slices import Slice
from bi_ops.catalog.sql_templates import render_sql
from bi_ops.errors import BiError, InvalidSourceRowError, MongoConfigurationError, ShrinkError, StagingError
from bi_ops.load.documents import Pseudonymizer
from bi_ops.load.stage import stage
from bi_ops.load.staged_loads import Load
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.mongo_error_rules import translate_pymongo_errors
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings
from dev.embedded_stack import DatabaseServers
from tests.load_helpers import (
    RUN,
    live_documents,
    live_documents_by_id,
    live_raw_documents,
    load_slice,
    make_slice,
    monthly_slice,
    plan_slice,
    stage_slice,
)
from tests.meg_factory import LONG_AGO, MegFactory, utc

QUERY = render_sql("monthly_submissions.sql")
QUERY_TOP_USERS = render_sql("top_users.sql")


def select(**changed: str) -> str:
    """The job's query with changed expressions for some columns; an empty one omits the column."""
    names = [
        *("institution_id", "institution_name", "form_id", "form_name", "form_type", "submissions", "submitters"),
        *("wards", "submissions_by_platform.web", "submissions_by_platform.ios", "submissions_by_platform.android"),
        *("submissions_by_platform.public", "first_submitted_at", "last_submitted_at", "previous_submissions"),
        "change_pct",
    ]
    columns = [
        f'{changed.get(name, chr(34) + name + chr(34))} AS "{name}"' for name in names if changed.get(name) != ""
    ]
    extra = [f'{sql} AS "{name}"' for name, sql in changed.items() if name not in names]
    return f"SELECT {', '.join([*columns, *extra])} FROM ({QUERY}) AS job"


@pytest.mark.parametrize(
    ("sql", "message", "hint"),
    [
        (select(submissions=""), "missing: submissions", "include/sql/monthly_submissions.sql"),
        (select(more="1"), "undeclared: more", "include/sql/monthly_submissions.sql"),
        (select(submissions="'many'"), "invalid value in submissions", "an integer of 64 bits"),
        (select(submissions="1.5"), "invalid value in submissions", "cast a numeric to bigint"),
        (select(submissions="9223372036854775808"), "numeric", "bigint"),
        (
            select(submissions="CASE WHEN submissions > 0 THEN 1 / 0 END::bigint"),
            "in the rows of form 1",
            "correct it in MEG",
        ),
        (select(submissions="(submissions + 9223372036854775807)::bigint"), "out of range", "correct it in MEG"),
        (select(change_pct="'NaN'::float8"), "invalid value in change_pct", "a finite number"),
        (select(change_pct="'Infinity'::numeric"), "invalid value in change_pct", "a finite number"),
        (select(form_name="7"), "invalid value in form_name", "Expected: text"),
        (select(first_submitted_at="current_date"), "invalid value in first_submitted_at", "with time zone"),
        (select(first_submitted_at="now()::timestamp"), "invalid value in first_submitted_at", "with time zone"),
        (select(first_submitted_at="'infinity'::timestamptz"), "invalid value in first_submitted_at", "1 to 9999"),
        (
            select(first_submitted_at="'20000-01-01'::timestamptz"),
            "): invalid value in first_submitted_at",
            "9999",
        ),
        (
            select(first_submitted_at="'0044-03-15 BC'::timestamptz"),
            "): invalid value in first_submitted_at",
            "1 to 9999",
        ),
        (select(form_id="NULL::bigint"), "null key", "a value in form_id"),
        (select(form_id="1"), "duplicates", "one row for each key"),
        (select(form_name="repeat('x', 17000000)"), "): invalid value in form_name", "32,768 bytes"),
        (select(form_name="repeat('é', 16385)"), "actual: 32770 bytes", "at most 32,768 bytes"),
        ("SELECT 1 FROM nowhere", "nowhere", "include/sql/source/"),
        ("SELEC 1", "syntax error", "include/sql/source/"),
        ("SELECT email FROM auth_user", "permission denied", "check the role's privileges"),
        ("SELECT %(nonsense)s", "nonsense", "include/sql/source/"),
    ],
)
def test_invalid_row_publishes_nothing(
    store: Store, meg: MegReader, meg_factory: MegFactory, sql: str, message: str, hint: str
) -> None:
    """A row that cannot become a document is reported, and nothing is published."""
    meg_factory.bulk_forms(3)
    load_slice(store, meg, monthly_slice())
    before = live_raw_documents(store, monthly_slice())
    with pytest.raises(BiError) as caught:
        run_translated(lambda: stage_slice(store, meg, monthly_slice(), sql=sql))
    assert message in str(caught.value)
    assert hint in str(caught.value)
    assert "monthly_submissions" in str(caught.value) or "test, MEG eu" in str(caught.value)
    assert not caught.value.retryable
    assert live_raw_documents(store, monthly_slice()) == before


@pytest.mark.parametrize(
    ("sql", "place"),
    [
        (
            select(submissions="(1 / (form_id - 2))::bigint"),
            "column submissions, the rows of form 2:",
        ),
        (
            select(first_submitted_at="CASE WHEN form_id = 12 THEN '-infinity'::timestamp END"),
            "column first_submitted_at, the rows of form 12:",
        ),
        (
            select(last_submitted_at="CASE WHEN form_id = 3 THEN '12000-01-01'::date END"),
            "column last_submitted_at, the rows of form 3:",
        ),
        (
            select(change_pct="1 / (form_id - 11)::float8", submitters="1 / (form_id - 11)"),
            "columns submitters, change_pct, the rows of form 11:",
        ),
        (f"{select()} WHERE 1 / (form_id - 2) < 2", "in the rows of form 2:"),
    ],
    ids=["computed", "infinite", "year 12000", "two columns", "condition"],
)
def test_unreadable_value_names_form_and_column(
    store: Store, meg: MegReader, meg_factory: MegFactory, sql: str, place: str
) -> None:
    """A value that MEG cannot compute or the driver cannot read is reported with its place."""
    meg_factory.bulk_forms(12)
    with pytest.raises(InvalidSourceRowError, match="a value in MEG cannot be read") as caught:
        stage_slice(store, meg, monthly_slice(), sql=sql, max_tasks=1)
    assert place in f"{caught.value.message}:"


def test_unreadable_value_without_form_is_located(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A job without chunks, which reads everything in one query, names the column."""
    add_people(meg_factory)
    columns = ", ".join(field.name for field in get_job("forms").fields if field.name != "created_at")
    sql = f"SELECT {columns}, '-infinity'::date AS created_at FROM ({render_sql('forms.sql')}) AS job"
    with pytest.raises(InvalidSourceRowError) as caught:
        stage_slice(store, meg, make_slice("forms", utc(2026, 11, 1)), sql=sql)
    assert caught.value.message == "a value in MEG cannot be read, in column created_at"


@pytest.mark.parametrize("value", ["-infinity", "infinity", "20000-01-01Z", "4000-01-01Z BC"])
@pytest.mark.parametrize("column", ["started_at", "ended_at", "submitted_at"])
def test_session_outside_calendar_is_located(
    store: Store, meg: MegReader, meg_factory: MegFactory, column: str, value: str
) -> None:
    """With a session's time outside the calendar, each job loads, or names the column and the row or form."""
    institution = meg_factory.institution()
    form = meg_factory.form(institution)
    auditor = meg_factory.auditor(institution)
    session = meg_factory.session(form, utc(2026, 10, 5), auditor_id=auditor, ended_at=utc(2026, 10, 5))
    meg_factory.session(form, utc(2026, 10, 5), auditor_id=auditor)
    meg_factory.connection.execute(f"UPDATE megforms_auditsession SET {column} = '{value}' WHERE id = {session}")
    errors = {job.name: load_error(store, meg, make_slice(job.name, utc(2026, 11, 1))) for job in JOBS}
    messages = {name: message for name, message in errors.items() if message}
    is_before = column == "submitted_at" and value in {"-infinity", "4000-01-01Z BC"}
    assert set(messages) == ({"quarterly_form_churn"} if is_before else set())
    for message in messages.values():
        assert message.startswith("invalid row (")
        assert message.endswith(f"form_id {form}): invalid value in first_submitted_at")


def load_error(store: Store, meg: MegReader, slice_: Slice) -> str:
    try:
        load_slice(store, meg, slice_)
    except InvalidSourceRowError as error:
        return error.message
    return ""


def run_translated(load: Any) -> None:
    with translate_pymongo_errors("monthly_submissions eu 2026-10 stage, connection bi_mongo"):
        load()


def test_invalid_encoding_is_reported(servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database with the encoding SQL_ASCII may hold bytes that are not valid text."""
    with servers.postgres.connect() as admin:
        admin.execute("DROP DATABASE IF EXISTS meg_bytes WITH (FORCE)")
        admin.execute("CREATE DATABASE meg_bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    for name, connection in servers.connections({"eu": "meg_bytes"}).items():
        monkeypatch.setenv(name, connection)
    with (
        open_meg("eu", application_name="monthly_submissions eu 2026-10 stage") as meg,
        pytest.raises(BiError, match="a value in MEG cannot be read"),
        meg.query(r"SELECT convert_from('\xff'::bytea, 'SQL_ASCII')", {}) as result,
    ):
        list(result.batches)


@pytest.mark.parametrize("remaining", [0, 4])
def test_broken_source_wipes_nothing(store: Store, meg: MegReader, meg_factory: MegFactory, remaining: int) -> None:
    """A source that returns less than half wipes nothing."""
    meg_factory.bulk_forms(10)
    load_slice(store, meg, monthly_slice())
    before = live_raw_documents(store, monthly_slice())
    meg_factory.connection.execute(
        "UPDATE megforms_auditform SET archived_at = %s WHERE id > %s", (LONG_AGO, remaining)
    )
    meg_factory.connection.execute("DELETE FROM megforms_observation")
    meg_factory.connection.execute("DELETE FROM megforms_auditsession")
    with pytest.raises(ShrinkError) as caught:
        load_slice(store, meg, monthly_slice())
    assert f"Expected: at least 5 of the 10 live documents; actual: {remaining}." in str(caught.value)
    assert "trigger the run again with force" in str(caught.value)
    assert live_raw_documents(store, monthly_slice()) == before
    assert load_slice(store, meg, monthly_slice(), force=True).documents == remaining


def add_people(meg_factory: MegFactory) -> None:
    institution = meg_factory.institution()
    form = meg_factory.form(institution)
    for name in ("Florence", "Mary"):
        auditor = meg_factory.auditor(institution, user=meg_factory.user(first_name=name, last_name="Seacole"))
        meg_factory.session(form, utc(2026, 10, 5), auditor_id=auditor)


def test_pseudonyms_are_stable(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """Names are replaced by pseudonyms that stay the same."""
    add_people(meg_factory)
    slice_ = make_slice("top_users", utc(2026, 11, 1))
    load_slice(store, meg, slice_)
    documents = live_documents_by_id(store, slice_)
    assert {document["user_name"] for document in documents.values()} == {"Florence Seacole", "Mary Seacole"}

    def names_with(key: str) -> dict[str, str]:
        load = plan_slice(store, meg, slice_)
        assert [*stage(meg, store, load, 0, sql=QUERY_TOP_USERS, pseudonyms=Pseudonymizer(key, slice_.region))]
        buckets = store.client["bi_staging"]["top_users"].find({"_id": {"$regex": f"^{load.id}"}})
        return {document["_id"]: document["user_name"] for bucket in buckets for document in bucket["documents"]}

    first, second, other_key = names_with("k" * 32), names_with("k" * 32), names_with("l" * 32)
    assert first == second
    assert set(first.values()).isdisjoint(other_key.values())
    assert len(set(first.values())) == 2
    assert all(name.startswith("person-") for name in first.values())
    in_staging = store.client["bi_staging"]["top_users"].find({"documents.run_id": {"$exists": False}})
    assert str(list(in_staging)).count("Seacole") == 2  # from the first load, which had no pseudonyms


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"BI_PSEUDONYMISE": "eu"}, "BI_PSEUDONYMISE"),
        ({"BI_TIMEZONE": "Europe/Berlin"}, "BI_TIMEZONE"),
        ({"BI_FORMS_PER_CHUNK": "20"}, "BI_FORMS_PER_CHUNK"),
    ],
)
def test_load_with_changed_setting_is_refused(changed: dict[str, str], name: str) -> None:
    """A load that was planned with one setting is neither staged nor published with another."""
    slice_, before = make_slice("top_users", utc(2026, 11, 1)), {"MEG_REGIONS": "eu"}
    settings, changed_settings = (
        load_settings(slice_, Settings.from_env(environment)) for environment in (before, before | changed)
    )
    load = Load(slice_, RUN, settings, ([None],), utc(2026, 11, 1))
    load.check_settings(settings)
    with pytest.raises(StagingError, match=rf"{name} has changed.*Clear the task group top_users\.eu") as caught:
        load.check_settings(changed_settings)
    assert not caught.value.retryable


def test_person_names_only_in_top_users(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """People's names are in top_users and nowhere else."""
    add_people(meg_factory)
    for job in JOBS:
        load_slice(store, meg, make_slice(job.name, utc(2026, 11, 1)))
        has_name = "Seacole" in str(live_documents(store, make_slice(job.name, utc(2026, 11, 1))))
        assert has_name is (job.name == "top_users"), job.name
    assert "Seacole" not in str(list(store.ledger.find()))


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"first_name": "", "last_name": "", "username": "jane.doe@hospital.example"}, "user {id}"),
        ({"first_name": " ", "last_name": "  ", "username": "jane.doe@hospital.example"}, "user {id}"),
        ({"first_name": "jane.doe@hospital.example", "last_name": "", "username": "jane"}, "jane"),
        ({"first_name": "Jane", "last_name": "doe@hospital.example", "username": "jane"}, "Jane"),
        ({"first_name": "", "last_name": "", "username": "jane"}, "jane"),
    ],
)
def test_user_name_hides_email_address(
    store: Store, meg: MegReader, meg_factory: MegFactory, columns: dict[str, str], name: str
) -> None:
    institution = meg_factory.institution()
    user = meg_factory.user(**columns)
    meg_factory.session(
        meg_factory.form(institution), utc(2026, 10, 5), auditor_id=meg_factory.auditor(institution, user=user)
    )
    slice_ = make_slice("top_users", utc(2026, 11, 1))
    load_slice(store, meg, slice_)
    assert {document["user_name"] for document in live_documents(store, slice_)} == {name.format(id=user)}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"collation": {"locale": "en", "strength": 2}}, "a collection with the default collation en"),
        ({"timeseries": {"timeField": "loaded_at"}}, "a time-series collection"),
        ({"capped": True, "size": 4096}, "a capped collection"),
        ({"viewOn": "elsewhere", "pipeline": []}, "a view"),
    ],
)
@pytest.mark.parametrize("name", ["monthly_submissions", "bi_loads"])
def test_special_live_collection_is_refused(
    store: Store, servers: DatabaseServers, options: dict[str, Any], kind: str, name: str
) -> None:
    with servers.mongo_admin.client() as admin:
        admin[store.live.name].create_collection(name, **options)
    with pytest.raises(MongoConfigurationError, match=f"the live collection {name} is {kind}") as caught:
        store.check_live_collections("monthly_submissions")
    assert not caught.value.retryable


@pytest.mark.parametrize("index", [{"expireAfterSeconds": 604800, "name": "staged_at_ttl"}, {"name": "staged_at_1"}])
def test_staging_index_may_differ(store: Store, servers: DatabaseServers, index: dict[str, Any]) -> None:
    """An administrator may change the staging index: its lifetime, or its name without a lifetime."""
    with servers.mongo_admin.client() as admin:
        admin[f"{store.live.name}_staging"]["monthly_submissions"].create_index("staged_at", **index)
    store.ensure_staging_collections("monthly_submissions")
