"""What MEG's rows may be, and what is said of one that cannot become a document; nothing of it is ever published."""

from __future__ import annotations

from typing import Any

import pytest

from bi_ops.connections import open_meg
from bi_ops.documents import Pseudonyms
from bi_ops.errors import BiError, ShrinkError, StagingError
from bi_ops.jobs import JOBS
from bi_ops.load import stage
from bi_ops.operators import _refuse_other_names
from bi_ops.settings import Settings
from bi_ops.source import Meg
from bi_ops.staging import StagedSlice
from bi_ops.store import Store
from bi_ops.store_errors import store_errors_told
from bi_ops.templates import render
from dev.stack import Databases
from tests.loads import RUN, documents_of, live, live_bytes, load_slice, month, slice_of, stage_slice
from tests.megs import LONG_AGO, MegRows, utc

QUERY = render("monthly_submissions.sql")


def select(**changed: str) -> str:
    """The job's query with some of its columns computed otherwise; None leaves a column out."""
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
    ("sql", "message", "cure"),
    [
        (select(submissions=""), "missing submissions", "include/sql/monthly_submissions.sql"),
        (select(more="1"), "not declared more", "include/sql/monthly_submissions.sql"),
        (select(submissions="'many'"), "submissions cannot be stored", "an integer of 64 bits"),
        (select(submissions="1.5"), "submissions cannot be stored", "cast a numeric to bigint"),
        (select(submissions="9223372036854775808"), "numeric", "bigint"),
        (select(submissions="CASE WHEN submissions > 0 THEN 1 / 0 END::bigint"), "DivisionByZero", "mend it in MEG"),
        (select(submissions="(submissions + 9223372036854775807)::bigint"), "out of range", "mend it in MEG"),
        (select(change_pct="'NaN'::float8"), "change_pct cannot be stored", "a finite number"),
        (select(change_pct="'Infinity'::numeric"), "change_pct cannot be stored", "a finite number"),
        (select(form_name="7"), "form_name cannot be stored", "expected text"),
        (select(first_submitted_at="current_date"), "first_submitted_at cannot be stored", "with time zone"),
        (select(first_submitted_at="now()::timestamp"), "first_submitted_at cannot be stored", "with time zone"),
        (select(first_submitted_at="'infinity'::timestamptz"), "cannot be read", "years 1 to 9999"),
        (select(first_submitted_at="'20000-01-01'::timestamptz"), "cannot be read", "years 1 to 9999"),
        (select(first_submitted_at="'0044-03-15 BC'::timestamptz"), "cannot be read", "years 1 to 9999"),
        (select(form_id="NULL::bigint"), "a row has no key", "form_id to be set"),
        (select(form_id="1"), "doubled", "so that a key gives one row"),
        (select(form_name="repeat('x', 17000000)"), "a document cannot be stored", "at most 16 MB"),
        ("SELECT 1 FROM nowhere", "nowhere", "include/sql/source/"),
        ("SELEC 1", "syntax error", "include/sql/source/"),
        ("SELECT email FROM auth_user", "permission denied", "let its role read"),
        ("SELECT %(nonsense)s", "nonsense", "include/sql/source/"),
    ],
)
def test_a_row_that_cannot_become_a_document_is_told_and_nothing_is_published(
    store: Store, meg: Meg, rows: MegRows, sql: str, message: str, cure: str
) -> None:
    rows.many_forms(3)
    load_slice(store, meg, month())
    before = live_bytes(store, month())
    with pytest.raises(BiError) as caught:
        told(store, lambda: stage_slice(store, meg, month(), sql=sql))
    assert message in str(caught.value)
    assert cure in str(caught.value)
    assert "monthly_submissions" in str(caught.value) or "test, MEG eu" in str(caught.value)
    assert not caught.value.heals_by_itself
    assert live_bytes(store, month()) == before


def told(store: Store, load: Any) -> None:
    assert store.live.name
    with store_errors_told("monthly_submissions eu 2026-10 stage, connection bi_mongo"):
        load()


def test_text_in_no_encoding_is_told(servers: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A MEG whose database does not say what its text is in may hold bytes that are no text."""
    with servers.postgres.connect() as admin:
        admin.execute("DROP DATABASE IF EXISTS meg_bytes WITH (FORCE)")
        admin.execute("CREATE DATABASE meg_bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    for name, connection in servers.connections({"eu": "meg_bytes"}).items():
        monkeypatch.setenv(name, connection)
    with (
        open_meg("eu", reader="monthly_submissions eu 2026-10 stage") as meg,
        pytest.raises(BiError, match="a value in MEG cannot be read"),
        meg.query(r"SELECT convert_from('\xff'::bytea, 'SQL_ASCII')", {}) as result,
    ):
        list(result.batches)


@pytest.mark.parametrize("left", [0, 4])
def test_a_source_that_returns_nothing_or_less_than_half_wipes_nothing(
    store: Store, meg: Meg, rows: MegRows, left: int
) -> None:
    rows.many_forms(10)
    load_slice(store, meg, month())
    before = live_bytes(store, month())
    rows.connection.execute("UPDATE megforms_auditform SET archived_at = %s WHERE id > %s", (LONG_AGO, left))
    rows.connection.execute("DELETE FROM megforms_observation")
    rows.connection.execute("DELETE FROM megforms_auditsession")
    with pytest.raises(ShrinkError) as caught:
        load_slice(store, meg, month())
    assert f"expected at least 5 of the 10 documents that are live; found {left}" in str(caught.value)
    assert "trigger the run again with force" in str(caught.value)
    assert live_bytes(store, month()) == before
    assert load_slice(store, meg, month(), force=True).documents == left


def people(rows: MegRows) -> None:
    institution = rows.institution()
    form = rows.form(institution)
    for name in ("Florence", "Mary"):
        auditor = rows.auditor(institution, user=rows.user(first_name=name, last_name="Seacole"))
        rows.session(form, utc(2026, 10, 5), auditor_id=auditor)


def test_names_are_replaced_by_pseudonyms_that_stay_the_same(store: Store, meg: Meg, rows: MegRows) -> None:
    people(rows)
    of = slice_of("top_users", utc(2026, 11, 1))
    load_slice(store, meg, of)
    named = documents_of(store, of)
    assert {document["user_name"] for document in named.values()} == {"Florence Seacole", "Mary Seacole"}

    def names_with(key: str) -> dict[str, str]:
        store.prepare_staging(of.job.name)
        staged = StagedSlice(store, of, RUN)
        how = {"sql": render("top_users.sql"), "timezone": "UTC", "pseudonyms": Pseudonyms(key, of.region)}
        assert [*stage(meg, staged, of, [None], **how)]
        found = store.client["bi_staging"]["top_users"].find()
        return {each["_id"]: each["user_name"] for packed in found for each in packed["documents"]}

    first, again, other = names_with("k" * 32), names_with("k" * 32), names_with("l" * 32)
    assert first == again
    assert set(first.values()).isdisjoint(other.values())
    assert len(set(first.values())) == 2
    assert all(name.startswith("person-") for name in first.values())
    assert "Seacole" not in str(list(store.client["bi_staging"]["top_users"].find()))


@pytest.mark.parametrize(("planned", "now"), [(False, "eu"), (True, "off")])
def test_names_that_were_staged_before_the_setting_changed_are_not_published(planned: bool, now: str) -> None:
    of = slice_of("top_users", utc(2026, 11, 1))
    settings = Settings.from_environment({"MEG_REGIONS": "eu", "BI_PSEUDONYMISE": now})
    with pytest.raises(StagingError, match="Clear the task group top_users"):
        _refuse_other_names(of, {"pseudonymised": planned}, settings)
    _refuse_other_names(of, {"pseudonymised": not planned}, settings)
    _refuse_other_names(month(), {}, settings)


def test_names_of_people_are_in_the_top_users_and_nowhere_else(store: Store, meg: Meg, rows: MegRows) -> None:
    people(rows)
    for job in JOBS:
        load_slice(store, meg, slice_of(job.name, utc(2026, 11, 1)))
        found = "Seacole" in str(live(store, slice_of(job.name, utc(2026, 11, 1))))
        assert found is (job.name == "top_users"), job.name
    assert "Seacole" not in str(list(store.ledger.find()))
