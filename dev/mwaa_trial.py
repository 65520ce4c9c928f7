"""Part of `make compat`: loads a month from the bundle of `make mwaa` alone, as an environment of Amazon MWAA would.

A new virtual environment has what MWAA's image has; requirements.txt is installed without a package index from the
wheels in plugins.zip, under Airflow's constraints; startup.sh sets the settings. Everything lies where MWAA puts it, in
a mount namespace of its own, with no include/ beside dags/.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bi_ops.reports.mwaa import MWAA_VALUE, MWAA_VARIABLE
from dev import airflow, demo_meg, demo_regions, embedded_stack, mwaa
from dev.compat_environments import WORK_DIR, create_venv, find_python
from dev.mwaa_wheels import PYTHON
from dev.processes import Service, StackError, stop

HOME = Path("/usr/local/airflow")
CONSTRAINTS_DIR = WORK_DIR / "constraints"
_AIRFLOW = "apache-airflow[celery,statsd]"
_IMAGE = ("apache-airflow-providers-amazon", "pip")
_JOBS = 3
"""The jobs of `bi_monthly`."""
_LOAD_SECONDS = 600
_START = """
mount --bind "$1" /usr/local/airflow && cd /usr/local/airflow && . startup/startup.sh || exit 1
export BI_START_DATE="$2"
airflow db migrate && airflow dags reserialize && airflow dags unpause bi_monthly && exec airflow standalone
"""
"""MWAA sources startup.sh. The start date lies one month back, so that one month is loaded."""
_INSTALL = """
mount --bind "$1" /usr/local/airflow && shift && exec "$@"
"""


def _skip_reason() -> str:
    """Why the trial cannot run here; empty if it can."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return "MWAA's paths need root, and Linux"
    return f"{HOME} is in use" if HOME.exists() and any(HOME.iterdir()) else ""


def try_bundle(version: str) -> dict[str, Any]:
    """Load one month from the bundle for this version of Airflow.

    Returns:
        A JSON object: `error` (empty if all is well), the number of `slices` and `documents`, and `outside`, the
        packages with other versions than the constraints have; or only `skipped`, the reason.
    """
    try:
        if reason := _skip_reason():
            return {"skipped": reason}
        if not (interpreter := find_python(PYTHON)):
            return {"skipped": f"no Python {PYTHON} is installed"}
        constraints = _constraints(version)
        if not constraints:
            return {"skipped": f"{mwaa.constraints_url(version)} cannot be reached. Hint: save it in {CONSTRAINTS_DIR}"}
        with _mount_point():
            return _try_bundle(version, interpreter, constraints)
    except StackError as error:
        return {"error": str(error)}


@contextmanager
def _mount_point() -> Iterator[None]:
    """Let MWAA's folder exist, for the trials' mounts; trials of other processes may use it too."""
    made_here = not HOME.exists()
    HOME.mkdir(exist_ok=True)
    descriptor = os.open(HOME, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        with suppress(BlockingIOError):  # else removing it would end the other trial's mount
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if made_here:
                HOME.rmdir()
        os.close(descriptor)


def _try_bundle(version: str, interpreter: Path, constraints: Path) -> dict[str, Any]:
    folder = WORK_DIR / f"mwaa-{version}"
    with embedded_stack.stack_lock(folder, reset=True):
        home = _unpack(mwaa.build_bundle(version, folder / "bucket", wheels=True), folder / "home")
        python = _install(version, interpreter, constraints, home, folder / "venv")
        with embedded_stack.databases(folder) as servers:
            demo_data = demo_meg.DemoConfig(seed=1, forms=15, until=demo_regions.this_month().date(), months=3)
            for database in demo_regions.DEMO_DATABASES.values():
                demo_meg.seed_database(servers.postgres, database, demo_data)
            airflow.ensure_database(servers.postgres, servers.secret["airflow"])
            environment = _environment(folder, servers, python)
            documents = _load(folder, home, environment, servers)
    outside = outside_constraints(python, constraints)
    expected = ["apache-airflow-providers-common-compat"] if version in mwaa.OUTSIDE_CONSTRAINTS else []
    wrong = "" if list(outside) == expected else f"outside the constraints: {outside}; expected {expected}"
    return {"error": wrong, "slices": _JOBS * len(demo_regions.DEMO_DATABASES), **documents, "outside": outside}


def _constraints(version: str) -> Path | None:
    """Airflow's constraints, downloaded once; None where they cannot be."""
    file = CONSTRAINTS_DIR / f"{version}.txt"
    if not file.exists():
        try:
            response = httpx.get(mwaa.constraints_url(version), timeout=30).raise_for_status()
        except httpx.HTTPError:
            return None
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(response.text)
    return file


def _unpack(bucket: Path, home: Path) -> Path:
    """Lay the bucket's files out as MWAA does."""
    shutil.copytree(bucket / "dags", home / "dags")
    zipfile.ZipFile(bucket / "plugins.zip").extractall(home / "plugins")
    for name, place in (("requirements.txt", "requirements"), ("startup.sh", "startup")):
        (home / place).mkdir()
        shutil.copy(bucket / name, home / place)
    return home


def _install(version: str, interpreter: Path, constraints: Path, home: Path, venv: Path) -> Path:
    """The Python of an environment with the image's packages, and then those of requirements.txt."""
    create_venv(venv, interpreter, [f"{_AIRFLOW}=={version}", *_IMAGE, "--constraint", str(constraints)])
    python = venv / "bin" / "python"
    essential = venv.parent / "essential-constraints.txt"
    essential.write_text(f"apache-airflow=={version}\n")
    requirements = HOME / "requirements" / "requirements.txt"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(essential), "-r", str(requirements)]
    # MWAA adds its constraints unless the file names some.
    if "--constraint " not in (home / "requirements" / "requirements.txt").read_text():
        pip += ["--constraint", str(constraints)]
    result = subprocess.run(_in_namespace(_INSTALL, home, *pip), capture_output=True, text=True, check=False)
    if result.returncode:
        raise StackError(f"requirements.txt of Airflow {version} cannot be installed:\n{result.stderr}")
    return python


def _in_namespace(script: str, home: Path, *arguments: str) -> list[str]:
    namespace = ["unshare", "--mount", "--propagation", "private"]
    return [*namespace, "sh", "-c", script, "sh", str(home), *arguments]


def _environment(folder: Path, servers: embedded_stack.DatabaseServers, python: Path) -> dict[str, str]:
    """The variables that MWAA sets, those of this stack's servers, and the connections."""
    connections = servers.connections(demo_regions.DEMO_DATABASES)
    environment = airflow.build_env(folder, servers.postgres, servers.secret, connections)
    return {
        **{name: value for name, value in environment.items() if name != "PYTHONPATH"},
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
        MWAA_VARIABLE: f"{MWAA_VALUE}trial",
        "PATH": os.pathsep.join([str(python.parent), environment["PATH"]]),
    }


def _load(
    folder: Path, home: Path, environment: Mapping[str, str], servers: embedded_stack.DatabaseServers
) -> dict[str, int]:
    """Run Airflow until the month is published; returns the number of documents."""
    month = demo_regions.this_month().subtract(months=1)
    command = _in_namespace(_START, home, month.to_date_string())
    service = Service("Airflow as on MWAA", command, log=folder / "logs" / "airflow.log", environment={**environment})
    slices = _JOBS * len(demo_regions.DEMO_DATABASES)
    with servers.mongo.client() as client:
        live = client[embedded_stack.LIVE_DATABASE]
        try:
            service.wait_until(lambda: live["bi_loads"].count_documents({}) == slices, seconds=_LOAD_SECONDS)
        finally:
            ended = service.process.poll() is not None
            children = [] if ended else psutil.Process(service.process.pid).children(recursive=True)
            stop(service)
            for process in children:  # `airflow standalone` leaves its API server
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        return {"documents": live["monthly_submissions"].count_documents({"period": f"{month:YYYY-MM}"})}


def outside_constraints(python: Path, constraints: Path) -> dict[str, str]:
    """The installed packages whose versions are not those of the constraints, as `1.12.0 (constraints: 1.7.3)`."""
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    ).stdout
    lines = (line.split("#")[0].strip() for line in constraints.read_text().splitlines())
    required = {canonicalize_name(item.name): item for item in map(Requirement, filter(None, lines))}
    installed = {canonicalize_name(item["name"]): item["version"] for item in json.loads(listed)}
    return {
        name: f"{installed[name]} (constraints: {str(required[name].specifier).removeprefix('==')})"
        for name in sorted(installed.keys() & required.keys())
        if installed[name] not in required[name].specifier and name != "pip"
    }
