"""Tests of `make sizing`: its arithmetic against hand-computed values, its messages and its advice."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from bi_ops.catalog.jobs import JOBS
from bi_ops.catalog.periods import Cadence
from bi_ops.errors import SettingsError
from bi_ops.settings import Settings
from dev import sizing_costs
from dev.sizing import main, parse_installation
from dev.sizing_advice import (
    DEFAULT_POOL_SLOTS,
    MAX_ACTIVE_TASKS_PER_DAG,
    MEG_CONNECTION_LIMIT,
    PARALLELISM,
    advice,
)
from dev.sizing_costs import JOB_COSTS, JobCost, TaskCost
from dev.sizing_model import Installation, Run, Storage, meg_connections
from tests.conftest import ROOT

pytestmark = pytest.mark.fast


def installation(regions: int, forms: int, *, mapped: int = 32, parallel: int = 8, **numbers: int) -> Installation:
    settings = Settings.from_env({"BI_MAX_MAPPED_TASKS": f"{mapped}", "BI_MAX_PARALLEL_CHUNKS": f"{parallel}"})
    return Installation(regions, forms, settings=settings, **numbers)


@pytest.fixture
def round_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs with which one can calculate in one's head."""
    monkeypatch.setattr(sizing_costs, "RUN_START_SECONDS", 10.0)
    monkeypatch.setitem(sizing_costs.TASK_COSTS, "local", TaskCost(core_seconds=0.5, slot_seconds=1.0))
    monkeypatch.setitem(sizing_costs.TASK_COSTS, "celery", TaskCost(core_seconds=1.5, slot_seconds=2.0))
    monkeypatch.setattr(sizing_costs, "REGION_CORE_SECONDS", 0.0)
    for name in ("dev.sizing_model.JOB_COSTS", "dev.sizing_advice.JOB_COSTS"):
        monkeypatch.setattr(
            name,
            tuple(
                JobCost(
                    job=cost.job,
                    documents_per_form=cost.documents_per_form,
                    fixed_documents=cost.fixed_documents,
                    read_months=cost.read_months,
                    document_us=100,
                    observation_us=1,
                    live_bytes=100,
                    raw_bytes=400,
                    id_index_bytes=30,
                    other_index_bytes=50,
                    staged_bytes=80,
                    meg_bytes=200,
                    mongo_bytes=1000,
                )
                for cost in JOB_COSTS
            ),
        )


def test_every_job_has_costs() -> None:
    assert [cost.job for cost in JOB_COSTS] == [*JOBS]


@pytest.mark.parametrize(
    ("regions", "forms", "monthly", "quarterly", "weekly"),
    [
        # gate, wait, and in each region three plans, three publishes, one stage of top_users, n of each job in chunks
        (1, 1, 2 + (6 + 1 + 2 * 1), 1 + 3, 1 + 9),
        (1, 10, 2 + (6 + 1 + 2 * 1), 1 + 3, 1 + 9),
        (1, 11, 2 + (6 + 1 + 2 * 2), 1 + 3, 1 + 9),
        (3, 2_000, 2 + 3 * (6 + 1 + 2 * 32), 1 + 9, 1 + 27),
        (100, 100_000, 7_102, 301, 901),
    ],
)
def test_task_counts(regions: int, forms: int, monthly: int, quarterly: int, weekly: int) -> None:
    here = installation(regions, forms)
    assert [Run(cadence, here).tasks for cadence in (Cadence.MONTHLY, Cadence.QUARTERLY, Cadence.WEEKLY)] == [
        monthly,
        quarterly,
        weekly,
    ]


@pytest.mark.usefixtures("round_costs")
def test_run_limited_by_cores() -> None:
    """73 tasks of 0.5 s; 2,000 documents twice and 80 of 100 us; 10 observations a form for 1, 1 and 12 months."""
    run = Run(Cadence.MONTHLY, installation(1, 2_000, observations=10, cores=2, slots=16))
    work = (2 * 2_000 + 80) * 100e-6 + (1 + 1 + 12) * 2_000 * 10 * 1e-6
    assert run.tasks == 73
    assert run.documents == 4_080
    assert run.core_seconds == pytest.approx(73 * 0.5 + work)
    assert run.limited_by == "cores"
    assert run.seconds == pytest.approx(10 + (36.5 + 0.408 + 0.28) / 2)


@pytest.mark.usefixtures("round_costs")
def test_run_limited_by_slots() -> None:
    """On one slot, each of the 73 tasks takes its second after the other."""
    run = Run(Cadence.MONTHLY, installation(1, 2_000, observations=0, cores=2, slots=1))
    assert run.limited_by == "worker slots"
    assert run.seconds == pytest.approx(10 + 73 * 1.0 + 0.408)
    celery = Run(Cadence.MONTHLY, replace(run.installation, executor="celery"))
    assert celery.seconds == pytest.approx(10 + 73 * 2.0 + 0.408)


@pytest.mark.usefixtures("round_costs")
def test_run_limited_by_longest_job() -> None:
    """`forms` of one region is one stage task, which more cores and slots do not make shorter."""
    run = Run(Cadence.WEEKLY, installation(1, 100_000, observations=0, cores=64))
    assert run.limited_by == "the longest job"
    assert run.seconds == pytest.approx(10 + 110_000 * 100e-6)


@pytest.mark.usefixtures("round_costs")
def test_storage_and_network() -> None:
    """Two collections keep each month, the others one load; staging has five weekly loads of 30 days."""
    here = installation(2, 6_000, months=3)
    monthly, quarterly, weekly = 2 * 6_000, 8 * 6_000, 1_000 + 6_600 + 1_000
    live = 2 * (monthly * 3 + 80 + quarterly + weekly)
    storage = Storage.of(here)
    assert storage.live == pytest.approx(live * 100)
    assert storage.live_raw == pytest.approx(live * 400)
    assert storage.id_indexes == pytest.approx(live * 30)
    assert storage.other_indexes == pytest.approx(live * 50)
    assert storage.staging == pytest.approx(2 * (monthly + 80 + quarterly + 5 * weekly) * 80)
    assert storage.staging_after_backfill == pytest.approx(2 * (3 * (monthly + 80) + quarterly + 5 * weekly) * 80)
    assert Run(Cadence.MONTHLY, here).meg_bytes == pytest.approx(2 * (monthly + 80) * 200)
    assert Run(Cadence.QUARTERLY, here).mongo_bytes == pytest.approx(2 * quarterly * 1000)
    assert Run(Cadence.MONTHLY, here).mongo_bytes == pytest.approx(2 * (monthly + 80) * 1000)


@pytest.mark.parametrize(
    ("forms", "parallel", "slots", "connections"),
    [
        (20_000, 8, 16, 8 + 8 + 5),
        (20_000, 32, 64, 32 + 32 + 5),
        (20, 8, 16, 2 + 2 + 5),
        (20_000, 8, 4, 4 + 4 + 5),
    ],
)
def test_connections_to_meg(forms: int, parallel: int, slots: int, connections: int) -> None:
    assert meg_connections(installation(1, forms, parallel=parallel, slots=slots)) == connections


@pytest.mark.parametrize(
    ("numbers", "name", "expected", "actual"),
    [
        ({"forms": "0"}, "FORMS", "1 to 100,000", "'0'"),
        ({"forms": "-5"}, "FORMS", "1 to 100,000", "'-5'"),
        ({"forms": "many"}, "FORMS", "1 to 100,000", "'many'"),
        ({"forms": "1.5"}, "FORMS", "1 to 100,000", "'1.5'"),
        ({"forms": "100001"}, "FORMS", "1 to 100,000", "'100001'"),
        ({"forms": ""}, "FORMS", "1 to 100,000", "''"),
        ({"forms": "\N{SUPERSCRIPT TWO}"}, "FORMS", "1 to 100,000", "'\N{SUPERSCRIPT TWO}'"),
        ({"regions": "0"}, "REGIONS", "1 to 100", "'0'"),
        ({"regions": "101"}, "REGIONS", "1 to 100", "'101'"),
        ({"observations": "-1"}, "OBSERVATIONS", "0 to 1,000", "'-1'"),
        ({"slots": "0"}, "SLOTS", "1 to 1,024", "'0'"),
    ],
)
def test_invalid_number(numbers: Mapping[str, str], name: str, expected: str, actual: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_installation({"regions": "2", "forms": "10", **numbers}, Settings())
    message = str(raised.value)
    assert message.startswith(f"make sizing, {name}: not a number that can be predicted.")
    assert f"Expected: a whole number, {expected}; actual: {actual}." in message
    assert "Hint: Run, for example: make sizing REGIONS=12 FORMS=20000" in message


def test_unknown_executor() -> None:
    with pytest.raises(SettingsError, match=r"EXECUTOR: .* Expected: local or celery; actual: 'kubernetes'\. Hint: "):
        parse_installation({"regions": "2", "forms": "10", "executor": "kubernetes"}, Settings())


def test_numbers_at_their_limits() -> None:
    here = parse_installation({"regions": "100", "forms": "100,000", "observations": "0"}, Settings())
    assert (here.regions, here.forms, here.observations) == (100, 100_000, 0)


@pytest.mark.usefixtures("round_costs")
def test_advice_on_mapped_tasks() -> None:
    """Where the tasks cost more than the work in them, fewer of them are advised, and the reverse for long ones.

    The work is 48.8 s: in each of 100 regions 2,080 documents of 100 us, and 1 + 1 + 12 months of 20,000 observations
    of 1 us. So the run takes 10 s and half of 7,102 * 0.5 + 48.8 s, or with one stage task for each job half of
    902 * 0.5 + 48.8 s.
    """
    [line] = [line for line in advice(installation(100, 1_000)) if line.startswith("BI_MAX_MAPPED_TASKS")]
    assert line == (
        "BI_MAX_MAPPED_TASKS=1 instead of 32: bi_monthly then has 902 tasks and takes 4.3 instead of 30.2 minutes."
    )


def test_advice_on_long_stage_tasks() -> None:
    """A stage task of more than five minutes is split, and nothing is advised that saves less than a minute."""
    long = installation(1, 100_000, mapped=1, observations=1_000, months=1, cores=64)
    assert re.search(r"^BI_MAX_MAPPED_TASKS=\d+ instead of 1: ", "\n".join(advice(long)), re.MULTILINE)
    assert not [line for line in advice(installation(1, 1_000)) if line.startswith("BI_MAX_MAPPED_TASKS")]


@pytest.mark.parametrize(
    ("slots", "settings"),
    [
        (16, []),
        (17, ["MAX_ACTIVE_TASKS_PER_DAG"]),
        (33, ["MAX_ACTIVE_TASKS_PER_DAG", "PARALLELISM"]),
        (129, ["MAX_ACTIVE_TASKS_PER_DAG", "PARALLELISM", "default_pool"]),
    ],
)
def test_advice_on_slots(slots: int, settings: list[str]) -> None:
    lines = "\n".join(advice(installation(100, 20_000, slots=slots, cores=200)))
    names = ["MAX_ACTIVE_TASKS_PER_DAG", "PARALLELISM", "default_pool"]
    assert [name for name in names if name in lines] == settings


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (installation(1, 20_000, parallel=32, slots=64), "69 connections to one MEG exceed the role's limit of 50"),
        (installation(1, 12_501), "quarterly_form_churn: a region's 100,008 documents are replaced in 2 transactions"),
        (installation(1, 50_000), "Give MongoDB a cache of 2 GB or more"),
        (installation(1, 100_000, observations=1_000), "MEG BI cancels a statement after 10 minutes"),
        (installation(1, 1_000, slots=64), "bi_monthly uses 17 of 64 worker slots"),
    ],
)
def test_advice_at_limits(here: Installation, expected: str) -> None:
    assert expected in "\n".join(advice(here))


def test_no_advice_below_limits() -> None:
    lines = "\n".join(advice(installation(1, 12_499)))
    for word in ("exceed", "transactions", "cache", "cancels", "worker slots"):
        assert word not in lines


def test_role_limit_is_that_of_its_file() -> None:
    """The advice on connections uses the limit that the role is created with."""
    assert f"CONNECTION LIMIT {MEG_CONNECTION_LIMIT};" in (ROOT / "include" / "meg" / "reader_role.sql").read_text()


def test_airflow_defaults() -> None:
    """The defaults that the advice names are Airflow's."""
    defaults = {
        "max_active_tasks_per_dag": MAX_ACTIVE_TASKS_PER_DAG,
        "parallelism": PARALLELISM,
        "default_pool_task_slot_count": DEFAULT_POOL_SLOTS,
    }
    spec = find_spec("airflow")  # imports nothing of it
    assert spec is not None
    assert spec.origin is not None
    options = yaml.safe_load((Path(spec.origin).parent / "config_templates" / "config.yml").read_text())["core"]
    assert {name: int(options["options"][name]["default"]) for name in defaults} == defaults


def test_command_prints_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--regions=12", "--forms=20000", "--months=", "--slots="]) == 0
    output = capsys.readouterr().out
    assert "12 regions of 20,000 forms, 24 months" in output
    assert "854" in output
    assert "21 connections to each MEG" in output


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "make sizing, FORMS: not a number"),
        ({"BI_MAX_MAPPED_TASKS": "0"}, "environment variable BI_MAX_MAPPED_TASKS: invalid setting"),
    ],
)
def test_command_fails_with_message(environment: Mapping[str, str], expected: str) -> None:
    """A bad number and a bad setting end with one line and status 2, and no traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "dev.sizing", "--regions=2", "--forms=ten"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "plugins"), "PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert expected in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_no_airflow_import() -> None:
    """The calculator starts without Airflow."""
    code = "import sys, dev.sizing; print([name for name in sys.modules if name.split('.')[0] == 'airflow'])"
    environment = {"PYTHONPATH": str(ROOT / "plugins")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
