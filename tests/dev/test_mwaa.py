"""Tests that the bundle of `make mwaa` works as Amazon MWAA unpacks it, without the rest of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bi_ops.mongo.store import Store
from dev import mwaa
from dev.embedded_stack import DatabaseServers
from dev.processes import StackError
from tests.airflow_env import command_line_env
from tests.conftest import ROOT
from tests.load_helpers import live_documents, monthly_slice
from tests.meg_factory import MegFactory

REPORTS = """
from bi_ops.catalog import source_contract, sql_templates
from bi_ops.reports.atlas import build_dashboard
from bi_ops.reports.definitions import load_reports
from bi_ops.reports.web import create_app
create_app(lambda: None)
build_dashboard("bi")
print(len(load_reports()), sql_templates.include_dir())
"""


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The folder /usr/local/airflow as MWAA fills it."""
    bucket, home = tmp_path / "a bucket", tmp_path / "home"
    mwaa.build_bundle(mwaa.DEFAULT_AIRFLOW, bucket)
    shutil.copytree(bucket / "dags", home / "dags")
    zipfile.ZipFile(bucket / "plugins.zip").extractall(home / "plugins")
    shutil.copy(bucket / "startup.sh", home)
    return home


def test_mwaa_bundle_loads_month(
    unpacked: Path, servers: DatabaseServers, store: Store, meg_factory: MegFactory
) -> None:
    """A month is loaded from the bundle alone."""
    meg_factory.bulk_forms(11)
    environment = command_line_env(unpacked, unpacked, **servers.connections({"eu": "meg_eu"}))

    def run(*words: str) -> str:
        command = ["sh", "-c", f'. "{unpacked}/startup.sh" && export MEG_REGIONS=eu && exec "$@"', "sh", *words]
        result = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("airflow", "db", "migrate")
    conf = json.dumps({"period": "2026-10", "jobs": ["monthly_submissions"]})
    run("airflow", "dags", "test", "bi_monthly", "-c", conf)
    assert [document["submissions"] for document in live_documents(store, monthly_slice())] == [1] * 11
    environment["PYTHONPATH"] = str(unpacked / "plugins")  # as Airflow's own processes have it
    count, include = run(sys.executable, "-c", REPORTS).split()[-2:]
    assert int(count) >= 14
    assert include == str(unpacked / "plugins" / "bi_ops" / "include")


@pytest.mark.parametrize("airflow", mwaa.supported_versions())
def test_mwaa_requirements_match_constraints(airflow: str, tmp_path: Path) -> None:
    """Each version's requirements are within its constraints."""
    lines = (mwaa.build_bundle(airflow, tmp_path) / "requirements.txt").read_text().splitlines()
    names = {re.split(r"[\[=]", line)[0] for line in lines if line[0] not in "-#"}
    required = {re.split(r"[\[= ]", line)[0] for line in (ROOT / "requirements.txt").read_text().splitlines()} - {"#"}
    assert names == required | {"apache-airflow-providers-common-compat"}
    constrained = [line for line in lines if line.startswith("--constraint ")]
    assert all(f"constraints-{airflow}/" in line for line in constrained)
    assert any("--constraint " in line for line in lines), "MWAA would force its own"


@pytest.mark.fast
@pytest.mark.parametrize("airflow", mwaa.supported_versions())
def test_mwaa_wheels_need_no_network(airflow: str) -> None:
    """With wheels, requirements.txt names the folder of plugins.zip, no address, and the same versions."""
    lines = mwaa.requirements_text(airflow, wheels=True).splitlines()
    assert lines[:2] == ["--find-links /usr/local/airflow/plugins", "--no-index"]
    assert "://" not in "".join(lines)
    packages = [line for line in lines if line[0] not in "-#"]
    online = mwaa.requirements_text(airflow, wheels=False).splitlines()
    assert packages == [line for line in online if line[0] not in "-#"]
    forced = "--constraint " in "\n".join(lines)
    assert forced == (airflow in mwaa.OUTSIDE_CONSTRAINTS), "MWAA adds its constraints unless the file has this word"


def test_mwaa_bundle_is_reproducible(tmp_path: Path) -> None:
    """The same files make the same bundle, and an edited script is kept."""
    built = mwaa.build_bundle(mwaa.DEFAULT_AIRFLOW, tmp_path)
    first = (built / "plugins.zip").read_bytes()
    (built / "startup.sh").write_text("export MEG_REGIONS=au\n")
    module = ROOT / "plugins" / "bi_ops" / "airflow" / "version_compat.py"
    times = module.stat()
    os.utime(module, (0, 1_700_000_000))
    try:
        mwaa.build_bundle(mwaa.DEFAULT_AIRFLOW, tmp_path)
    finally:
        os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (built / "plugins.zip").read_bytes() == first
    assert (built / "startup.sh").read_text() == "export MEG_REGIONS=au\n"
    with zipfile.ZipFile(built / "plugins.zip") as packed:
        names = packed.namelist()
    assert ".airflowignore" in names, "Airflow would run each module as a plugin"
    assert "bi_ops/include/meg/reader_role.sql" in names, "bi_doctor compares the role with it"
    assert not [name for name in names if name.endswith(".pyc")]


def test_mwaa_unknown_version_is_refused() -> None:
    """A version that MWAA lacks is refused."""
    with pytest.raises(StackError, match="name one of"):
        mwaa.build_bundle("2.10.5")
