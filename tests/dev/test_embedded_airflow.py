"""Tests Airflow in the embedded stack: its ports, its task logs, and an API server that is slow or has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from dev import airflow, demo_history, run_dags
from dev.airflow import AirflowServices
from dev.api_client import FIRST_TIMEOUT, ApiClient
from dev.embedded_stack import DatabaseServers
from dev.processes import Service, StackError, free_port
from tests.airflow_env import NO_SCHEDULED_RUNS, AirflowApi, new_airflow
from tests.conftest import ROOT, STACK
from tests.dev.documented_commands import STACK_COMMANDS, run
from tests.load_helpers import API_PAUSE, wait_until
from tests.meg_factory import MegFactory

pytestmark = pytest.mark.airflow

DAG = "bi_monthly"
REGION = "au"  # which the documented commands name
CONF = {"period": "2026-10", "jobs": ["monthly_submissions"]}
SECOND_STACK = """
import json, sys
from pathlib import Path
from dev import airflow
from dev.embedded_stack import databases, stack_lock

folder, port = Path(sys.argv[1]), int(sys.argv[2])
with stack_lock(folder), databases(folder) as servers:
    environment = airflow.build_env(folder, servers.postgres, servers.secret, {}, port=port)
    airflow.migrate(folder, servers.postgres, servers.secret, environment)
    print(environment["AIRFLOW__API__PORT"], flush=True)
    sys.stdin.readline()
    services = airflow.run_services(folder, environment, servers.secret, scheduler=False, triggerer=False)
    with services as running, running.api() as api:
        print("answered", running.url, api.get("/dags").status_code, flush=True)
        sys.stdin.readline()
"""
"""A stack of another process: it prints the port that it found free, then the address and status of its API."""


@dataclass(frozen=True)
class Stacks:
    """The first stack, and the observations of a second one that was started at the same time.

    Attributes:
        first: The first stack, which keeps running.
        servers: Its databases.
        chosen_ports: The port that each found free.
        urls: Where the API of each then was.
        second_status: The status of a call to the second's API with the second's password.
        sockets: The process and the address of each socket on which the stacks listened.
    """

    first: AirflowServices
    servers: DatabaseServers
    chosen_ports: tuple[int, int]
    urls: tuple[str, str]
    second_status: str
    sockets: set[tuple[str, str]]


@contextmanager
def second_stack(port: int) -> Iterator[subprocess.Popen[str]]:
    """Run a second stack, which starts its databases and waits for a line before it starts Airflow."""
    folder = ROOT / ".local" / "test-second"  # PostgreSQL's account may enter it if root runs the tests
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    command = [sys.executable, "-c", SECOND_STACK, str(folder), str(port)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def listening_sockets() -> set[tuple[str, str]]:
    """The name and the address of each child process that listens."""
    sockets = set()
    for process in psutil.Process().children(recursive=True):
        try:
            connections = process.net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        listening = [connection for connection in connections if connection.status == psutil.CONN_LISTEN]
        sockets |= {(process.name(), connection.laddr.ip) for connection in listening}
    return sockets


@pytest.fixture(scope="module")
def stacks(servers: DatabaseServers) -> Iterator[Stacks]:
    with servers.postgres.connect("meg_eu") as connection:
        meg_factory = MegFactory(connection)
        meg_factory.bulk_forms(25)
        meg_factory.auditor(1_000_000)
    settings = {**NO_SCHEDULED_RUNS, "MEG_REGIONS": REGION, "BI_MAX_MAPPED_TASKS": "1"}
    settings |= servers.connections({REGION: "meg_eu"})
    port = free_port()
    environment = new_airflow(servers, STACK, settings, port=port)
    with second_stack(port) as second:
        assert second.stdin
        assert second.stdout
        chosen = (int(environment["AIRFLOW__API__PORT"]), int(second.stdout.readline()))
        second.stdin.write("\n")
        second.stdin.flush()
        with airflow.run_services(STACK, environment, servers.secret) as first:
            _, url, status = next(filter(None, map(_answer, second.stdout)))
            sockets = listening_sockets()
            second.stdin.close()
            second.wait(60)
            yield Stacks(first, servers, chosen, (first.url, url), status, sockets)


def _answer(line: str) -> list[str] | None:
    return line.split() if line.startswith("answered") else None


@pytest.fixture(scope="module")
def api(stacks: Stacks) -> Iterator[ApiClient]:
    with stacks.first.api() as client:
        for dag_id in (DAG, "bi_quarterly", "bi_weekly", "bi_backfill"):
            run_dags.wait_for_dag(client, dag_id)
            client.patch(f"/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
        yield client


@contextmanager
def frozen_api_server(stacks: Stacks) -> Iterator[psutil.Process]:
    """Suspend Airflow's API server while the block runs, as on an overloaded machine."""
    process = psutil.Process(stacks.first.services["api-server"].process.pid)
    process.suspend()
    try:
        yield process
    finally:
        process.resume()


def test_ports_two_stacks_started_at_once(stacks: Stacks) -> None:
    """Two stacks that found the same port free get two ports, and each talks to its own API."""
    assert stacks.chosen_ports[0] == stacks.chosen_ports[1], "they did not compete for a port"
    assert stacks.urls[0] != stacks.urls[1]
    assert stacks.second_status == "200"
    with stacks.first.api() as client:
        assert client.get("/dags").status_code == 200


def test_sockets_listen_on_loopback_only(stacks: Stacks) -> None:
    """No process of a stack can be reached from another machine."""
    assert {name for name, _ in stacks.sockets} >= {"postgres", "mongod"}
    assert any("airflow api" in name for name, _ in stacks.sockets)
    assert {socket for socket in stacks.sockets if not ip_address(socket[1]).is_loopback} == set()


def dag_runs(api: ApiClient) -> dict[str, str]:
    """The state of each DAG run, by its DAG and id."""
    runs = run_dags.api_request(api, "GET", "/dags/~/dagRuns", params={"limit": 100})["dag_runs"]
    return {f"{run['dag_id']} {run['dag_run_id']}": run["state"] for run in runs}


def test_documented_airflow_commands(stacks: Stacks, api: ApiClient) -> None:
    """Each documented command that triggers DAG runs triggers at least one, and all runs succeed."""
    for command in STACK_COMMANDS:
        before = dag_runs(api)
        run(command, ROOT, stacks.first.environment)
        assert dag_runs(api).keys() - before.keys(), command
    wait_until(lambda: not {"queued", "running"} & set(dag_runs(api).values()), 240, pause=API_PAUSE)
    assert set(dag_runs(api).values()) == {"success"}


def test_task_log_running_and_finished(stacks: Stacks, api: ApiClient) -> None:
    """The log of a task is read from the disk while the task runs and after it."""
    dag = AirflowApi(api, DAG)
    plan = f"monthly_submissions.{REGION}.plan"
    with stacks.servers.postgres.connect("meg_eu") as connection, connection.transaction():
        connection.execute("LOCK TABLE megforms_auditsession IN ACCESS EXCLUSIVE MODE")
        run_id = dag.trigger(**CONF)
        wait_until(lambda: dag.tasks(run_id).get((plan, -1), {}).get("state") == "running", 120, pause=API_PAUSE)
        wait_until(lambda: "Worker startup parse complete" in dag.log_lines(run_id, plan), 30, pause=API_PAUSE)
    assert dag.wait_for_run(run_id) == "success"
    lines = dag.log_lines(run_id, plan)
    assert "Worker startup parse complete" in lines
    assert "Pushing xcom" in lines


def test_api_slower_than_timeout(stacks: Stacks, api: ApiClient, capsys: pytest.CaptureFixture[str]) -> None:
    """A call that times out is retried, and the command continues."""
    with frozen_api_server(stacks) as process:
        resume = threading.Timer(FIRST_TIMEOUT + 5, process.resume)
        resume.start()
        states = run_dags.run_and_wait(api, run_dags.RunRequest(DAG, triggered=("slow_api", CONF)), seconds=300)
        resume.join()
    assert states == {DAG: {"slow_api": "success"}}
    output = " ".join(capsys.readouterr().out.split())
    assert f"has not answered for {FIRST_TIMEOUT:.0f} s (ReadTimeout). Retrying for" in output


def test_api_run_created_but_answer_lost(api: ApiClient) -> None:
    """A retried trigger returns the run that the first attempt created."""
    first = run_dags.trigger(api, DAG, "answer_lost", CONF)
    assert run_dags.trigger(api, DAG, "answer_lost", CONF)["queued_at"] == first["queued_at"]
    assert AirflowApi(api, DAG).wait_for_run("answer_lost") == "success"


@pytest.mark.usefixtures("store")
def test_history_loaded_once(stacks: Stacks, api: ApiClient, capsys: pytest.CaptureFixture[str]) -> None:
    """`make up` loads a month that is not published by `bi_backfill`, prints it, and does not load it again."""
    for _ in range(2):
        assert demo_history.load_history(api, stacks.servers.mongo, ["2026-10"], [REGION])
    assert demo_history.published_months(stacks.servers.mongo, ["2026-09", "2026-10"], [REGION]) == {"2026-10"}
    output = capsys.readouterr().out
    assert output.index("Loading 1 earlier") < output.index("2026-10 loaded: 1 of 1") < output.index("All months are")
    assert output.count("2026-10 loaded") == 1


def test_api_silent_until_deadline(stacks: Stacks, api: ApiClient) -> None:
    """At the deadline of the command the error is one paragraph."""
    began = time.monotonic()
    with frozen_api_server(stacks), pytest.raises(StackError, match=r"did not answer GET .* Hint: ") as caught:
        run_dags.run_and_wait(api, run_dags.RunRequest(DAG, triggered=("never", CONF)), seconds=3)
    assert "\n" not in str(caught.value)
    assert 3 <= time.monotonic() - began < 10


def test_api_server_ended(tmp_path: Path) -> None:
    """A server that has ended is not waited for."""
    server = Service("A server", ["false"], log=tmp_path / "log", environment=os.environ)
    server.process.wait()
    client = ApiClient(f"http://127.0.0.1:{free_port()}", server.check_running)
    with client, pytest.raises(StackError, match="A server ended with status 1"):
        client.get("/")
