"""Whoever moves over is shown what the old collections and ours say differently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from bi_ops.source import Meg
from bi_ops.store import Store
from dev.compare import differences
from dev.stack import Databases
from tests.conftest import ROOT, STACK
from tests.loads import live, load_slice, month
from tests.megs import MegRows, utc

OLD = "bi_old"
Compare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def compare(servers: Databases, store: Store, meg: Meg, rows: MegRows) -> Iterator[Compare]:
    """A month of ours, the same of the old system's, and the command that holds them against each other."""
    rows.many_forms(12)
    load_slice(store, meg, month())
    fields = json.loads(servers.connections({})["AIRFLOW_CONN_BI_MONGO"])
    admin = {"schema": OLD, "login": servers.mongo_admin.login, "password": servers.mongo_admin.password}
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
        client.drop_database(OLD)
        client[OLD]["monthly_submissions"].insert_many(
            {"form": each["form_id"], "month": each["period"], "submissions": each["submissions"]}
            for each in live(store, month())
        )
        yield run
        client.drop_database(OLD)


def test_the_same_figures_are_the_same_under_other_names(compare: Compare) -> None:
    done = compare("--called", "form_id=form", "--called", "period=month", "--where", '{"month": "2026-10"}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "They say the same." in done.stdout
    assert "Not compared, since the old documents have none: change_pct" in done.stdout


def test_each_difference_is_shown_with_both_figures(compare: Compare, servers: Databases) -> None:
    with servers.mongo_admin.client() as client:
        old = client[OLD]["monthly_submissions"]
        old.delete_one({"form": 3})
        old.update_one({"form": 4}, {"$set": {"submissions": 77}})
        old.insert_many([{"form": 5, "month": "2026-10", "submissions": 1}, {"form": 99, "month": "2026-10"}])
    done = compare("--called", "form_id=form", "--called", "period=month")
    assert done.returncode == 1, done.stdout + done.stderr
    shown = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("│")}
    assert "99" in shown["only the old one has"]
    assert "3" in shown["only ours has"]
    assert "5" in shown["the old one has more than once"]
    assert "4: 77, ours 1" in shown["submissions"]


def test_other_regions_and_months_are_left_out_by_themselves(compare: Compare, servers: Databases) -> None:
    with servers.mongo_admin.client() as client:
        old = client[OLD]["monthly_submissions"]
        old.update_many({}, {"$set": {"region": "eu"}})
        old.insert_many({"form": form, "month": "2026-10", "submissions": 9, "region": "uk"} for form in range(1, 13))
        old.insert_many({"form": form, "month": "2026-09", "submissions": 9, "region": "eu"} for form in range(1, 13))
    done = compare("--called", "form_id=form", "--called", "period=month")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--where", '{"month": "1999-01"}', "--called", "form_id=form"), "only ours has"),
        (("--called", "submisions=count"), "has no field submisions"),
        (("--called", "form_id"), "is not ours=theirs"),
        (("--where", "[1]"), "no MongoDB filter"),
    ],
)
def test_what_cannot_be_compared_is_not_called_the_same(compare: Compare, words: tuple[str, ...], said: str) -> None:
    done = compare(*words)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "They say the same" not in done.stdout


def test_nothing_against_nothing_is_nothing(compare: Compare) -> None:
    done = compare("--collection", "nowhere", job="monthly_sessions")
    assert done.returncode == 2
    assert "Nothing was compared" in done.stdout


def test_numbers_may_be_nearly_the_same_however_deep_and_times_are_instants() -> None:
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
    assert differences(ours, near, ["form_id"], called={}, tolerance=0.1).none
    assert set(differences(ours, near, ["form_id"], called={}).fields) == {"duration_seconds", "risks"}
    later = [{**near[0], "at": utc(2026, 10, 6)}]
    assert set(differences(ours, later, ["form_id"], called={}, tolerance=0.1).fields) == {"at"}


def test_a_key_that_is_called_otherwise_is_asked_for(compare: Compare) -> None:
    done = compare()
    assert done.returncode == 2
    assert "An old document has no form_id" in done.stdout
    assert "--called form_id=..." in done.stdout
