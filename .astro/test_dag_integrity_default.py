"""Run by `astro dev parse` and before `astro deploy`: every DAG imports, with nothing set and nothing connected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from airflow.models import DagBag

PROJECT = Path(__file__).parents[1]
EXCEPTIONS = Path(__file__).with_name("dag_integrity_exceptions.txt")


@pytest.fixture(scope="module")
def problems() -> dict[str, str]:
    """What is wrong, by file, where each setting that is asked for and not there is some text."""
    there = os.getenv
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getenv", lambda name, default=None: there(name, default) or "NOT_SET")
        found: dict[str, str] = DagBag(str(PROJECT / "dags")).import_errors
    left_out = {line for line in EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")}
    return {file: problem for file, problem in found.items() if Path(file).name not in left_out}


@pytest.mark.parametrize("name", sorted(file.name for file in (PROJECT / "dags").glob("*.py")))
def test_dags_import(problems: dict[str, str], name: str) -> None:
    """Astronomer's own integrity check: every DAG file imports."""
    assert not [problem for file, problem in problems.items() if file.endswith(name)]
