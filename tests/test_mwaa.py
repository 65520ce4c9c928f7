"""What `make mwaa` builds works as Amazon MWAA unpacks it: with no include/ and nothing else of the project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bi_ops.store import Store
from dev import mwaa
from dev.processes import StackError, child_environment
from dev.stack import Databases
from tests.conftest import ROOT, STACK
from tests.loads import live, month
from tests.megs import MegRows

VERSIONS = sorted(each.stem for each in (ROOT / "dev" / "compat").glob("*.in"))
REPORTS = """
from bi_ops import relations, templates
from bi_ops.reports.definitions import reports
from bi_ops.reports.web import make_app
make_app()
print(len(reports()), templates.include_folder())
"""


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """/usr/local/airflow, as MWAA makes it."""
    built = mwaa.build(mwaa.DEFAULT)
    shutil.copytree(built / "dags", tmp_path / "dags")
    zipfile.ZipFile(built / "plugins.zip").extractall(tmp_path / "plugins")
    return tmp_path


def test_a_month_is_loaded_from_the_bundle_alone(
    unpacked: Path, servers: Databases, store: Store, rows: MegRows
) -> None:
    rows.many_forms(11)
    environment = child_environment(
        STACK,
        {
            "AIRFLOW_HOME": str(unpacked),
            "AIRFLOW__CORE__DAGS_FOLDER": str(unpacked / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(unpacked / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **servers.connections({"eu": "meg_eu"}),
        },
    )

    def run(*words: str) -> str:
        command = ["sh", "-c", f'. {mwaa.DIST}/startup.sh && export MEG_REGIONS=eu && exec "$@"', "sh", *words]
        done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("airflow", "db", "migrate")
    conf = json.dumps({"period": "2026-10", "jobs": ["monthly_submissions"]})
    run("airflow", "dags", "test", "bi_monthly", "-c", conf)
    assert [document["submissions"] for document in live(store, month())] == [1] * 11
    environment["PYTHONPATH"] = str(unpacked / "plugins")  # as Airflow's own processes have it
    count, include = run(sys.executable, "-c", REPORTS).split()[-2:]
    assert int(count) >= 14
    assert include == str(unpacked / "plugins" / "bi_ops" / "include")


@pytest.mark.parametrize("airflow", VERSIONS)
def test_each_version_asks_for_what_its_constraints_have(airflow: str) -> None:
    lines = (mwaa.build(airflow) / "requirements.txt").read_text().splitlines()
    names = {re.split(r"[\[=]", line)[0] for line in lines if line[0] not in "-#"}
    wanted = {re.split(r"[\[= ]", line)[0] for line in (ROOT / "requirements.txt").read_text().splitlines()} - {"#"}
    assert names == wanted | {"apache-airflow-providers-common-compat"}
    constrained = [line for line in lines if line.startswith("--constraint ")]
    assert all(f"constraints-{airflow}/" in line for line in constrained)
    assert any("--constraint " in line for line in lines), "MWAA would force its own"


def test_the_same_files_make_the_same_bundle() -> None:
    first = (mwaa.build(mwaa.DEFAULT) / "plugins.zip").read_bytes()
    assert (mwaa.build(mwaa.DEFAULT) / "plugins.zip").read_bytes() == first
    with zipfile.ZipFile(mwaa.DIST / "plugins.zip") as packed:
        assert not [name for name in packed.namelist() if name.endswith(".pyc") or "password" in name]


def test_a_version_that_mwaa_does_not_have_is_told() -> None:
    with pytest.raises(StackError, match="Name one of"):
        mwaa.build("2.10.5")
