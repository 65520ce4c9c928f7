"""Runs docker-compose.yaml on a Docker engine, as docs/compose.md says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dev.api_client import ApiClient
from dev.processes import Service, free_port, stop
from tests import load_helpers
from tests.conftest import ROOT

PROJECT = "meg-bi-test"
UP = "BI_AGGREGATE=1 docker compose --profile bi up"
UP_CELERY = (
    "BI_AGGREGATE=1 BI_EXECUTOR=CeleryExecutor docker compose --profile bi --profile celery up --scale airflow-worker=3"
)
UP_AGAIN = "BI_AGGREGATE=1 docker compose --profile bi up -d"
STOP = "docker compose --profile bi stop"
DOWN = "docker compose --profile bi --profile celery down"
_FENCED = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s+# .*")
_STATE = '{"name": {{json (index .Config.Labels "com.docker.compose.service")}}, "state": {{json .State}}}'
_DUMP_SLICES = """
import hashlib, json
from dev import compose_init
with compose_init._mongo(compose_init.SECRETS_DIR / 'own' / 'ca.pem').client() as client:
    live = client['bi']
    dump = {}
    for row in live['bi_loads'].find({}, {'job': 1, 'region': 1, 'period': 1, 'run_id': 1, 'documents': 1}):
        query = {'region': row['region'], **({'period': row['period']} if row['period'] else {})}
        documents = sorted(
            repr({name: value for name, value in document.items() if name not in ('loaded_at', 'run_id')})
            for document in live[row['job']].find(query)
        )
        digest = hashlib.sha256('\\n'.join(documents).encode()).hexdigest()
        dump[row['_id']] = {**row, 'live': len(documents), 'digest': digest}
print(json.dumps(dump))
"""


def documented_compose_commands() -> set[str]:
    """The commands of the Compose guide, each on one line."""
    blocks = _FENCED.findall((ROOT / "docs" / "compose.md").read_text())
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return {" ".join(_COMMENT.sub("", line).split()) for line in lines}


def compose_program() -> list[str]:
    """The Compose that this machine has: the plugin of Docker's client, else the program of its own."""
    version = ["docker", "compose", "version"]
    has_plugin = shutil.which("docker") and not subprocess.run(version, capture_output=True, check=False).returncode
    return ["docker", "compose"] if has_plugin else ["docker-compose"]


class ComposeProject:
    """The stack in a Docker engine, under a project name and ports of its own.

    Args:
        engine: The environment variables by which the client finds the engine.
        folder: The folder of the commands' output.
    """

    def __init__(self, engine: Mapping[str, str], folder: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BI_", "MEG_"))}
        ports = {name: str(free_port()) for name in ("BI_UI_PORT", "BI_MONGO_EXPRESS_PORT")}
        self.environment = {**inherited, **engine, **ports, "COMPOSE_PROJECT_NAME": PROJECT}
        self._folder = folder
        self._compose = compose_program()

    def run(self, command: str, **environment: str) -> str:
        """Run a command as a user types it, and return its output.

        Raises:
            AssertionError: It failed.
        """
        result = subprocess.run(
            ["bash", "-c", self._typed(command)],
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{command}:\n{result.stdout[-4000:]}"
        return result.stdout

    @contextmanager
    def attached(self, command: str, **environment: str) -> Iterator[Path]:
        """Run `docker compose up` in the foreground for the block, then stop it as Ctrl-C does; yields its output."""
        log = self._folder / "up.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._typed(command, in_environment=True)}"],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield log
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(600)

    def _typed(self, command: str, *, in_environment: bool = False) -> str:
        """The command with the Compose that this machine has."""
        typed = command.replace("docker compose", " ".join(self._compose))
        return f"env {typed}" if in_environment else typed

    def states(self) -> dict[str, list[dict[str, Any]]]:
        """What Docker says of each service's containers: the `state` of each."""
        ids = self.run(f"docker ps --all --quiet --filter label=com.docker.compose.project={PROJECT}").split()
        if not ids:
            return {}
        states: dict[str, list[dict[str, Any]]] = {}
        for line in self.run(f"docker inspect --format '{_STATE}' {' '.join(ids)}").splitlines():
            container = json.loads(line)
            states.setdefault(container["name"], []).append(container)
        return states

    def unhealthy(self) -> list[str]:
        """The running services that are not healthy, or not yet."""
        return sorted(
            name
            for name, containers in self.states().items()
            for container in containers
            if container["state"].get("Health", {}).get("Status", "healthy") != "healthy"
        )

    def exit_codes(self) -> dict[str, set[int]]:
        """The exit code of each service's containers, all of which have ended."""
        states = self.states()
        assert not [name for name, all_ in states.items() for each in all_ if each["state"]["Running"]]
        return {name: {each["state"]["ExitCode"] for each in all_} for name, all_ in states.items()}

    def slices(self) -> dict[str, dict[str, Any]]:
        """Each published slice: its ledger row, the number of live documents and their digest without load metadata."""
        code = _DUMP_SLICES.replace('"', '\\"')
        output = self.run(f'docker compose --profile bi run --rm --no-deps -T meg-init python -c "{code}" 2>&1')
        dump: dict[str, dict[str, Any]] = json.loads(output.strip().splitlines()[-1])
        return dump

    @contextmanager
    def api(self) -> Iterator[ApiClient]:
        """A client of Airflow's REST API, with the login that `welcome` prints."""
        wait_until(lambda: bool(self._logins()), lambda: "welcome printed no login")
        url, username, password = self._logins()[-1]
        with ApiClient(url, lambda: None) as client:
            token = client.post("/auth/token", json={"username": username, "password": password})
            client.headers["Authorization"] = f"Bearer {token.raise_for_status().json()['access_token']}"
            client.base_url = f"{url}/api/v2"
            yield client

    def _logins(self) -> list[tuple[str, str, str]]:
        """The address, name and password of each time that `welcome` ran."""
        welcome = self.run("docker compose --profile bi logs welcome")
        return re.findall(r"Airflow: +(\S+) +login: (\S+) +password: (\S+)", welcome)

    def remove(self) -> None:
        """Remove the containers and the volumes, as the guide says."""
        self.run("docker compose --profile bi --profile celery down --volumes")


def wait_until(ready: Callable[[], bool], problem: Callable[[], str]) -> None:
    """Wait for a quarter of an hour, as long as Docker waits for a service, and fail with the problem after it."""
    load_helpers.wait_until(ready, seconds=900, pause=1, problem=problem)


@contextmanager
def running_engine(folder: Path) -> Iterator[dict[str, str]]:
    """The variables by which the client finds the machine's Docker engine, else one that runs until the block ends.

    Args:
        folder: The folder in which an engine of its own keeps its images.
    """
    if not shutil.which("docker"):
        pytest.skip("there is no Docker client here: apt-get install docker.io docker-compose")
    if not _problem({}):
        yield {}
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip(f"no Docker engine runs, and only root may start one: {_problem({})}")
    sockets = Path(tempfile.mkdtemp(prefix="meg-bi-"))  # a socket's path is limited to about a hundred characters
    environment = {"DOCKER_HOST": f"unix://{sockets}/docker.sock"}
    command = [
        *("dockerd", "--host", environment["DOCKER_HOST"], "--data-root", str(folder)),
        *("--exec-root", str(sockets / "exec"), "--pidfile", str(sockets / "pid")),
    ]
    engine = Service("Docker", command, log=folder.with_suffix(".log"), environment=dict(os.environ))
    try:
        engine.wait_until(lambda: not _problem(environment), seconds=60)
        yield environment
    finally:
        stop(engine)
        shutil.rmtree(sockets, ignore_errors=True)


def _problem(engine: Mapping[str, str]) -> str:
    """Why the engine does not answer; empty if it does."""
    environment = {**os.environ, **engine}
    result = subprocess.run(["docker", "version"], env=environment, capture_output=True, text=True, check=False)
    return result.stderr.strip() if result.returncode else ""
