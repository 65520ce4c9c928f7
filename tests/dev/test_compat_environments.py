"""Tests which environments `make compat` runs, and that it uses only interpreters that run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dev import mwaa
from dev.compat_environments import ENVIRONMENTS, MWAA, find_python, select_environments
from dev.processes import StackError
from tests.conftest import ROOT

pytestmark = pytest.mark.fast

CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_compat_covers_platforms() -> None:
    """Each version on MWAA, and the Runtime and Python of Dockerfile, are among the environments."""
    on_mwaa = [item.airflow for item in ENVIRONMENTS if item.platform == MWAA and item.python == "3.12"]
    assert on_mwaa == mwaa.supported_versions()
    tag = re.search(r"runtime:(\S+)-python-(\S+)", (ROOT / "Dockerfile").read_text())
    assert tag
    assert f"astro-{tag[1]}-python-{tag[2]}" in [item.name for item in ENVIRONMENTS]


def test_compat_pins_name_their_airflow() -> None:
    """The pins of each environment install its Airflow."""
    for item in ENVIRONMENTS:
        assert f"apache-airflow=={item.airflow}\n" in item.pins.read_text(), item.name


def test_compat_only_selects_by_part_of_name() -> None:
    """Words select the environments whose names contain one of them; an unknown word is an error."""
    assert [item.name for item in select_environments("3.2.1")] == ["3.2.1-python-3.12"]
    assert {item.python for item in select_environments("python-3.10, python-3.14")} == {"3.10", "3.14"}
    assert tuple(select_environments("")) == ENVIRONMENTS
    with pytest.raises(StackError, match=r"ONLY=2\.10 selects no environment\. Expected: .*3\.2\.1-python-3\.12"):
        select_environments("2.10")


def test_find_python_ignores_broken_shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of the right name that does not run is passed over, and a version that does not exist is not found."""
    shim = tmp_path / f"python{CURRENT}"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    versions = tmp_path / "pyenv" / "versions" / f"{CURRENT}.99" / "bin"
    versions.mkdir(parents=True)
    (versions / shim.name).symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert find_python(CURRENT) == versions / shim.name
    assert find_python("2.99") is None
