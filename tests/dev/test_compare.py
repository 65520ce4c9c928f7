"""Tests that `make compare` shows the differences between an old collection and the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev.compare import diff_collections
from dev.embedded_stack import DatabaseServers
from tests.conftest import ROOT, STACK
from tests.load_helpers import live_documents, load_slice, monthly_slice
from tests.meg_factory import MegFactory, utc

OLD_DATABASE = "bi_old"
Compare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def compare(servers: DatabaseServers, store: Store, meg: MegReader, meg_factory: MegFactory) -> Iterator[Compare]:
    """The same month in the new and the old collection, and the command that compares them."""
    meg_factory.bulk_forms(12)
    load_slice(store, meg, monthly_slice())
    fields = json.loads(servers.connections({})["AIRFLOW_CONN_BI_MONGO"])
    admin = {"schema": OLD_DATABASE, "login": servers.mongo_admin.login, "password": servers.mongo_admin.password}
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(STACK / "airflow"),
        "PYTHONPATH": str(ROOT / "plugins"),
        "AIRFLOW_CONN_BI_MONGO": json.dumps(fields),
        "AIRFLOW_CONN_BI_OLD": json.dumps({**fields, **admin}),
        "COLUMNS": "200",
    }

    def run(*words: str, job: str = "monthly_submissions") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dev.compare", job, "eu", "2026-10", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    with servers.mongo_admin.client() as client:
        client.drop_database(OLD_DATABASE)
        client[OLD_DATABASE]["monthly_submissions"].insert_many(
            {"form": document["form_id"], "month": document["period"], "submissions": document["submissions"]}
            for document in live_documents(store, monthly_slice())
        )
        yield run
        client.drop_database(OLD_DATABASE)


def test_compare_renamed_fields_are_equal(compare: Compare) -> None:
    """Equal figures are equal under other field names."""
    result = compare("--rename", "form_id=form", "--rename", "period=month", "--where", '{"month": "2026-10"}')
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No differences." in result.stdout
    assert "Not compared, since the old documents have none: change_pct" in result.stdout


def test_compare_shows_both_figures(compare: Compare, servers: DatabaseServers) -> None:
    """Each difference is shown with both figures."""
    with servers.mongo_admin.client() as client:
        old = client[OLD_DATABASE]["monthly_submissions"]
        old.delete_one({"form": 3})
        old.update_one({"form": 4}, {"$set": {"submissions": 77}})
        old.insert_many([{"form": 5, "month": "2026-10", "submissions": 1}, {"form": 99, "month": "2026-10"}])
    result = compare("--rename", "form_id=form", "--rename", "period=month")
    assert result.returncode == 1, result.stdout + result.stderr
    lines = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if line.startswith("│")}
    assert "99" in lines["only in old"]
    assert "3" in lines["only in new"]
    assert "5" in lines["duplicate in old"]
    assert "4: old 77, new 1" in lines["submissions"]


def test_compare_ignores_other_slices(compare: Compare, servers: DatabaseServers) -> None:
    """Other regions and months are left out."""
    with servers.mongo_admin.client() as client:
        old = client[OLD_DATABASE]["monthly_submissions"]
        old.update_many({}, {"$set": {"region": "eu"}})
        old.insert_many({"form": form, "month": "2026-10", "submissions": 9, "region": "uk"} for form in range(1, 13))
        old.insert_many({"form": form, "month": "2026-09", "submissions": 9, "region": "eu"} for form in range(1, 13))
    result = compare("--rename", "form_id=form", "--rename", "period=month")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--where", '{"month": "1999-01"}', "--rename", "form_id=form"), "only in new"),
        (("--rename", "submisions=count"), "has no field submisions"),
        (("--rename", "form_id"), "is not NEW=OLD"),
        (("--where", "[1]"), "is not a MongoDB filter"),
    ],
)
def test_compare_without_fields_is_no_match(compare: Compare, words: tuple[str, ...], message: str) -> None:
    """Documents without a common field do not count as equal."""
    result = compare(*words)
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert "No differences" not in result.stdout


def test_compare_empty_collections(compare: Compare) -> None:
    """Two empty collections are not reported as equal."""
    result = compare("--collection", "nowhere", job="monthly_sessions")
    assert result.returncode == 2
    assert "Nothing was compared" in result.stdout


def test_compare_tolerates_rounding() -> None:
    """Numbers may differ by the tolerance at any depth; times are compared as instants."""
    day = utc(2026, 10, 5)
    ours = [{"form_id": 1, "duration_seconds": {"median": 1.0, "p90": None}, "at": day, "risks": [1.0]}]
    near = [
        {
            "form_id": 1,
            "duration_seconds": {"median": 1.04, "p90": None},
            "at": day.replace(tzinfo=None),
            "risks": [1.04],
        }
    ]
    assert diff_collections(ours, near, ["form_id"], field_map={}, tolerance=0.1).is_empty
    assert set(diff_collections(ours, near, ["form_id"], field_map={}).fields) == {"duration_seconds", "risks"}
    later = [{**near[0], "at": utc(2026, 10, 6)}]
    assert set(diff_collections(ours, later, ["form_id"], field_map={}, tolerance=0.1).fields) == {"at"}


def test_compare_renamed_key(compare: Compare) -> None:
    """A key with another name in the old collection is renamed."""
    result = compare()
    assert result.returncode == 2
    assert "An old document has no form_id" in result.stdout
    assert "--rename form_id=..." in result.stdout
