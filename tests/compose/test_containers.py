"""Tests the Compose guide on a Docker engine with real containers: `make compose-test`.

The images are stand-ins built from `images/`, or with `IMAGES=hub` the true ones.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pendulum
import pytest

from dev import mongo
from tests.compose.docker_engine import DOWN, STOP, UP, UP_AGAIN, UP_CELERY, ComposeProject, running_engine, wait_until
from tests.compose.test_compose import install_npm_packages
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(1800)

FOLDER = ROOT / ".local" / "compose-images"
MONTH = pendulum.now("UTC").start_of("month").subtract(months=1)
SLICES = 2 * 6  # no quarter lies within the month
CLEAN_EXITS = {0, 143}
"""A process ended by itself, or of the SIGTERM that it was sent; 137 is of SIGKILL."""


@pytest.fixture(scope="module")
def engine() -> Iterator[dict[str, str]]:
    """A Docker engine with the images of docker-compose.yaml; the variables by which it is found."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with running_engine(FOLDER.with_name("compose-engine")) as variables:
        if os.environ.get("IMAGES") != "hub":
            build_stand_ins(variables)
        yield variables


def build_stand_ins(engine: dict[str, str]) -> None:
    """Build the images that are missing in the engine."""
    missing = [name for name in ("debootstrap", "npm") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"stand-ins for the images need root and {', '.join(missing) or 'nothing more'}. Hint: IMAGES=hub")
    npm = install_npm_packages()
    subprocess.run(["cp", "--archive", "--link", "--no-target-directory", npm, FOLDER / "npm"], check=True)
    shutil.copy(mongo.mongod_path(), FOLDER)
    subprocess.run([Path(__file__).parent / "images" / "build.sh", FOLDER], env={**os.environ, **engine}, check=True)


@pytest.fixture
def project(engine: dict[str, str], tmp_path: Path) -> Iterator[ComposeProject]:
    """The stack, without data at first and afterwards; it loads the month that ended last."""
    project = ComposeProject(engine, tmp_path)
    project.environment["BI_START_DATE"] = MONTH.to_date_string()
    project.remove()
    yield project
    project.remove()


def wait_until_loaded(project: ComposeProject) -> None:
    """Wait until all slices are published."""
    wait_until(
        lambda: len(project.slices()) >= SLICES, lambda: project.run("docker compose --profile bi logs --tail=50")
    )


def trigger_month(project: ComposeProject, run_id: str) -> None:
    """Start a run of the monthly DAG for the month that is loaded already, and wait until a task of it runs."""
    with project.api() as api:
        conf = {"period": MONTH.format("YYYY-MM")}
        run = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        api.post("/dags/bi_monthly/dagRuns", json=run).raise_for_status()
        tasks = f"/dags/bi_monthly/dagRuns/{run_id}/taskInstances"

        def stages() -> bool:
            instances = api.get(tasks).raise_for_status().json()["task_instances"]
            return any(task["state"] == "running" and "stage" in task["task_id"] for task in instances)

        wait_until(stages, lambda: f"no task of {run_id} stages")


def wait_until_success(project: ComposeProject, run_id: str) -> None:
    """Wait until the run has ended well, with nobody's help; the API may fail meanwhile, as its database is down."""
    with project.api() as api:

        def state() -> str:
            response = api.get(f"/dags/bi_monthly/dagRuns/{run_id}")
            return str(response.json()["state"]) if response.is_success else f"not known: {response.status_code}"

        wait_until(lambda: state() in ("success", "failed"), lambda: f"the run is {state()}")
        assert state() == "success"


def assert_loaded_once(project: ComposeProject, before: dict[str, dict[str, object]], run_id: str) -> None:
    """Every monthly slice is of this run, and holds the documents that it held before, each once."""
    after = project.slices()
    monthly = {name for name, row in before.items() if str(row["job"]).startswith("monthly_")}
    assert monthly
    for name in monthly:
        assert after[name]["run_id"] == run_id, name
        assert after[name]["documents"] == after[name]["live"] == before[name]["live"], name
        assert after[name]["digest"] == before[name]["digest"], name


def test_up_loads_month_and_stops_cleanly(project: ComposeProject) -> None:
    """`up` makes everything healthy and loads a month; Ctrl-C ends all cleanly, and `down` leaves nothing."""
    with project.attached(UP) as log:
        wait_until(lambda: "mongo-express: http" in log.read_text(errors="replace"), lambda: log.read_text()[-4000:])
        wait_until(lambda: not project.unhealthy(), lambda: f"not healthy: {project.unhealthy()}")
        wait_until_loaded(project)
        output = log.read_text(errors="replace")
    assert "pull access denied" not in output
    assert "Traceback" not in output
    killed = {name: codes for name, codes in project.exit_codes().items() if codes - CLEAN_EXITS}
    assert not killed
    project.run(f"{DOWN} --volumes")
    assert not project.states()
    assert not project.run("docker volume ls --quiet").split()


def test_down_amid_month_completes_on_up(project: ComposeProject) -> None:
    """A stop amid a month ends all cleanly, and the next `up` completes the month, exactly once."""
    project.run(UP_AGAIN)
    wait_until_loaded(project)
    before = project.slices()
    trigger_month(project, "stopped")
    project.run(STOP)
    killed = {name: codes for name, codes in project.exit_codes().items() if codes - CLEAN_EXITS}
    assert not killed
    project.run(DOWN)
    project.run(UP_AGAIN)
    wait_until_success(project, "stopped")
    assert_loaded_once(project, before, "stopped")


def test_without_bi_aggregate_nothing_loads(project: ComposeProject) -> None:
    """Everything starts, and the runs skip their tasks."""
    project.run("docker compose --profile bi up -d", BI_AGGREGATE="")
    with project.api() as api:

        def states() -> set[str]:
            runs = api.get("/dags/~/dagRuns").raise_for_status().json()["dag_runs"]
            return {run["state"] for run in runs if run["dag_id"] == "bi_monthly"}

        wait_until(lambda: states() == {"success"}, lambda: f"the runs are {states()}")
    assert not project.slices()


RESTARTED = (
    "mongo",
    "postgres",
    "airflow-scheduler",
    "airflow-apiserver",
    "airflow-dag-processor",
    "airflow-triggerer",
)


def disturb(project: ComposeProject, before: dict[str, dict[str, object]], name: str, *commands: str) -> float:
    """Trigger the month, run the commands amid it, and check that it completes; returns the seconds from the first."""
    run_id = name.replace(" ", "-")
    trigger_month(project, run_id)
    start = time.monotonic()
    for command in commands:
        project.run(command)
    wait_until_success(project, run_id)
    seconds = time.monotonic() - start
    assert_loaded_once(project, before, run_id)
    return seconds


def test_month_survives_restart_of_each_container(project: ComposeProject, capsys: pytest.CaptureFixture[str]) -> None:
    """A month completes, exactly once, whichever container is restarted or killed amid it."""
    project.run(UP_AGAIN)
    wait_until_loaded(project)
    before = project.slices()
    compose = "docker compose --profile bi"
    for service, action in itertools.product(RESTARTED, ("restart", "kill")):
        # Docker counts a kill as a stop by hand, after which it restarts nothing.
        start = [f"{compose} start {service}"] if action == "kill" else []
        seconds = disturb(project, before, f"{action} {service}", f"{compose} {action} {service}", *start)
        with capsys.disabled():
            print(f"\n{action} {service}: the month completed after {seconds:.0f} s")


def test_celery_month_survives_killed_worker(project: ComposeProject, capsys: pytest.CaptureFixture[str]) -> None:
    """Three Celery workers load a month; it completes, exactly once, when one is killed or Redis is restarted."""
    project.run(f"{UP_CELERY} -d")
    wait_until_loaded(project)
    assert len(project.states()["airflow-worker"]) == 3
    before = project.slices()
    compose = "docker compose --profile bi --profile celery"
    worker = project.run(f"{compose} ps --quiet airflow-worker").split()[0]
    for name, command in (
        ("restart of all workers", f"{compose} restart airflow-worker"),
        ("restart of redis", f"{compose} restart redis"),
        ("kill of redis", f"{compose} kill redis && {compose} start redis"),
        ("kill of a worker", f"docker kill {worker}"),
    ):
        seconds = disturb(project, before, name, command)
        with capsys.disabled():
            print(f"\n{name}: the month completed after {seconds:.0f} s")
    project.run(f"docker start {worker}")
    wait_until(lambda: not project.unhealthy(), lambda: f"not healthy: {project.unhealthy()}")
