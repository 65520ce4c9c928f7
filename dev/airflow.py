"""Runs Airflow from .venv: its four services on LocalExecutor, with a metadata database on PostgreSQL."""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from dev.api_client import ApiClient
from dev.console import console
from dev.postgres import Postgres
from dev.processes import PortTakenError, Service, StackError, child_env, free_port, stop, write_secret

ROOT = Path(__file__).parents[1]
METADATA_DATABASE = "meg_bi_airflow"
LOGIN = "admin"
UI_PORT = 8080
_SERVICES = {
    "api-server": (),
    "dag-processor": (),
    "scheduler": ("--skip-serve-logs",),
    "triggerer": ("--skip-serve-logs",),
}
"""The options of each service. No log servers: they listen on every address, and here all logs are on one disk."""
_START_SECONDS = 600
_PORT_ATTEMPTS = 5
_NO_LOG_SERVER = 1
"""The port at which Airflow looks for a log server. None listens on it, not even that of another Airflow."""
_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no certificate, for calls over HTTP: httpx would load all authorities for each call, which takes 25 ms."""


@dataclass(frozen=True)
class AirflowServices:
    """A running Airflow.

    Attributes:
        url: The address of its UI and its API.
        password: The password of the login `admin`.
        environment: The environment of its processes; the `airflow` command works with it too.
        services: Its processes, by the name of their command.
        start: Starts one of them in place of one that has ended.
    """

    url: str
    password: str
    environment: Mapping[str, str]
    services: Mapping[str, Service]
    start: Callable[[str], Service]

    @contextmanager
    def api(self) -> Iterator[ApiClient]:
        """A client of the REST API, logged in.

        Raises:
            StackError: The login is refused, or the API does not answer.
        """
        with ApiClient(self.url, self._check_api_server) as client:
            token = client.post("/auth/token", json={"username": LOGIN, "password": self.password})
            if token.is_error:
                raise StackError(f"Airflow rejected the login {LOGIN}: {token.status_code} {token.text[:500]}")
            client.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
            client.base_url = httpx.URL(f"{self.url}/api/v2")
            yield client

    def _check_api_server(self) -> None:
        self.services["api-server"].check_running()


def build_env(
    stack: Path, postgres: Postgres, secret: Mapping[str, str], extra: Mapping[str, str], *, port: int = 0
) -> dict[str, str]:
    """The environment of every Airflow process of the stack.

    Args:
        stack: The stack's folder.
        postgres: The server of Airflow's metadata; the role and the database are called `meg_bi_airflow`.
        secret: The stack's secrets.
        extra: Further variables, such as connections and settings.
        port: The port of the UI, where that is free; 0 for any.
    """
    home = stack / "airflow"
    home.mkdir(parents=True, exist_ok=True)
    passwords = home / "passwords.json"
    write_secret(passwords, json.dumps({LOGIN: secret["ui"]}))
    metadata = f"{METADATA_DATABASE}:{secret['airflow']}@{postgres.host}:{postgres.port}/{METADATA_DATABASE}"
    cores = os.cpu_count() or 2
    settings = {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": ROOT / "dags",
        "AIRFLOW__CORE__PLUGINS_FOLDER": ROOT / "plugins",
        "AIRFLOW__CORE__LOAD_EXAMPLES": False,
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": 2 * cores,
        "AIRFLOW__CORE__FERNET_KEY": secret["fernet"],
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{LOGIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{metadata}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": 1,
        "AIRFLOW__API__SECRET_KEY": secret["session"],
        "AIRFLOW__API_AUTH__JWT_SECRET": secret["jwt"],
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": home / "logs",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": _NO_LOG_SERVER,
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": _NO_LOG_SERVER,
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": 30,
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": 1,
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 20,
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 60,
        # A worker waits this long for a task's process that ends just after its sockets: five seconds by default.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": False,
    }
    strings = {name: str(value) for name, value in settings.items()}
    return child_env(stack, {**strings, **_port_settings(free_port(port)), **extra})


def _port_settings(port: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
    }


def generate_secrets() -> dict[str, str]:
    """New secrets for one stack, by name."""
    return {
        **{name: secrets.token_urlsafe(24) for name in ("airflow", "session", "jwt")},
        "ui": secrets.token_urlsafe(9),
        "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


def migrate(stack: Path, postgres: Postgres, secret: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Create Airflow's metadata database, or migrate it to this version of Airflow.

    Raises:
        StackError: The migration failed; the message ends with its log.
    """
    ensure_database(postgres, secret["airflow"])
    log = stack / "logs" / "airflow-migrate.log"
    with log.open("wb") as output:
        result = subprocess.run(_command("db", "migrate"), env=environment, stdout=output, stderr=output, check=False)
    if result.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise StackError(f"Airflow could not migrate its metadata database. The end of {log}:\n{tail}")


def ensure_database(postgres: Postgres, password: str) -> None:
    """Create the database for Airflow's metadata and the role that owns it, both called `meg_bi_airflow`."""
    postgres.ensure_role(METADATA_DATABASE, password)
    if not postgres.database_exists(METADATA_DATABASE):
        postgres.create_database(METADATA_DATABASE)
    with postgres.connect() as connection:
        connection.execute(f"ALTER DATABASE {METADATA_DATABASE} OWNER TO {METADATA_DATABASE}")


@contextmanager
def run_services(
    stack: Path,
    environment: dict[str, str],
    secret: Mapping[str, str],
    *,
    scheduler: bool = True,
    triggerer: bool = True,
) -> Iterator[AirflowServices]:
    """Run Airflow's services until the block ends; the API answers when the block begins.

    Args:
        stack: The stack's folder.
        environment: The environment of every service, updated where another program takes the API's port first.
        secret: The stack's secrets.
        scheduler: Whether to run the scheduler, without which no DAG run is created or executed.
        triggerer: Whether to run the triggerer, without which no deferred task resumes.

    Raises:
        StackError: A service cannot be started.
    """
    services: dict[str, Service] = {}
    with ExitStack() as exit_stack:
        exit_stack.callback(_stop, services)

        def start(name: str) -> Service:
            log = stack / "logs" / f"airflow-{name}.log"
            command = _command(name, *_SERVICES[name])
            service = Service(f"Airflow's {name}", command, log=log, environment=environment)
            services[name] = service
            return service

        _start_api_server(start, environment)
        url = environment["AIRFLOW__API__BASE_URL"]
        # Both after the API server: a task that cannot reach the API fails.
        started = start("scheduler") if scheduler else None
        if triggerer:
            start("triggerer")
        if started:
            started.wait_until(lambda: _is_healthy(url, "scheduler"), seconds=_START_SECONDS)
        yield AirflowServices(url, secret["ui"], environment, services, start)


def _start_api_server(start: Callable[[str], Service], environment: dict[str, str]) -> None:
    """Start the DAG processor and the API server, which gets another port if another program takes its own."""
    for _ in range(_PORT_ATTEMPTS):
        api_server, dag_processor = start("api-server"), start("dag-processor")
        try:
            api_server.wait_until(partial(_serves, api_server, environment), seconds=_START_SECONDS)
        except PortTakenError as error:
            console.print(f"{error} Trying another port.", highlight=False)
            stop(api_server, dag_processor)
            environment.update(_port_settings(free_port()))
        else:
            return
    raise StackError(
        f"Other programs took {_PORT_ATTEMPTS} ports before Airflow could listen on them. Hint: run the command again."
    )


def _serves(api_server: Service, environment: Mapping[str, str]) -> bool:
    """Whether this API server, and not another program, listens on its port and is healthy."""
    port, url = environment["AIRFLOW__API__PORT"], environment["AIRFLOW__API__BASE_URL"]
    return api_server.listens_on(int(port)) and _is_healthy(url, "metadatabase", "dag_processor")


def _stop(services: Mapping[str, Service]) -> None:
    if triggerer := services.get("triggerer"):  # after one signal it waits ten seconds for a child that waits for it
        triggerer.terminate()
        time.sleep(1)
    stop(*services.values())


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]


def _is_healthy(url: str, *parts: str) -> bool:
    try:
        health: dict[str, Any] = httpx.get(
            f"{url}/api/v2/monitor/health", timeout=30, trust_env=False, verify=_NO_AUTHORITIES
        ).json()
    except (httpx.HTTPError, ValueError):
        return False
    return all(health[part]["status"] == "healthy" for part in parts)
