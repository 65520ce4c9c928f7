"""Tests that the embedded stack ends with the process that started it, and starts again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from bi_ops.settings import Settings
from dev import commands, demo_regions, mongo, postgres
from dev.embedded_stack import DatabaseServers, databases, stack_lock
from dev.processes import STACK_ENV_VAR, StackError, StackRunningError, free_port
from tests.conftest import ROOT
from tests.load_helpers import wait_until

PROGRAM = """
import signal, sys
from pathlib import Path
from dev.__main__ import _interrupt
from dev.embedded_stack import databases, stack_lock
signal.signal(signal.SIGTERM, _interrupt)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts without it
with stack_lock(Path(sys.argv[1])), databases(Path(sys.argv[1])) as servers:
    print(servers.postgres.pid, servers.mongo.pid, flush=True)
    signal.pause()
"""

HOLDER = """
import sys
from pathlib import Path
from dev.embedded_stack import stack_lock
with stack_lock(Path(sys.argv[1])):
    pass
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A stack's folder, under the project's, so that PostgreSQL's account may enter it if root runs the tests."""
    path = ROOT / ".local" / "test-stack"
    subprocess.run(["rm", "-rf", str(path)], check=True)
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


def start(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, [int(pid) for pid in process.stdout.readline().split()]


def still_running(folder: Path) -> list[str]:
    names = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(STACK_ENV_VAR) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                names.append(process.name())
        except psutil.Error:
            continue
    return names


@pytest.mark.parametrize(
    "signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
def test_stack_leaves_no_process(folder: Path, signal_number: signal.Signals) -> None:
    """No process stays, and the next start works."""
    for _ in range(2):
        process, pids = start(folder)
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        process.send_signal(signal_number)
        process.wait(60)
        wait_until(lambda: still_running(folder) == [])
    with stack_lock(folder), databases(folder) as servers, servers.postgres.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """Let SIGINT end child processes, also if a shell runs the tests as a background job, which ignores it."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.usefixtures("default_sigint")
def test_stack_kills_orphans_at_start(folder: Path) -> None:
    """The next start kills the processes that a killed parent left running."""
    log = folder / "logs" / "airflow-scheduler.log"
    log.parent.mkdir(parents=True)
    marked = subprocess.Popen(["sleep", "600"], env={**os.environ, STACK_ENV_VAR: str(folder)})
    with log.open("w") as output:
        renamed = subprocess.Popen(["sleep", "600"], env={}, stdout=output)
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, folder], cwd=ROOT, stdout=output)
    assert holder.wait(60) == 0, "the process that kills orphans does not kill itself"
    with subprocess.Popen(["tail", "-f", log], env={}, stdout=subprocess.DEVNULL) as reader:
        try:
            assert (marked.poll(), renamed.poll(), reader.poll()) == (-signal.SIGINT, -signal.SIGINT, None)
        finally:
            reader.kill()


def test_stack_second_start_is_refused(folder: Path) -> None:
    """A second start names the process that runs the first."""
    with (
        stack_lock(folder),
        pytest.raises(StackError, match=rf"already running \(process {os.getpid()}\)"),
        stack_lock(folder),
    ):
        pass


def test_demo_has_stage_task_per_chunk(servers: DatabaseServers) -> None:
    """The demo shows how chunks fan out: no stage task takes two."""
    settings = Settings.from_env(demo_regions.demo_env(servers))
    assert settings.forms_per_chunk == 10
    assert max(demo_regions.DEMO_FORMS.values()) <= settings.max_mapped_tasks * settings.forms_per_chunk


def test_stack_skips_busy_port() -> None:
    """A busy port is skipped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        busy_port = listener.getsockname()[1]
        assert free_port(busy_port) not in (0, busy_port)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (postgres.URL_ENV_VAR, "postgresql://nobody@127.0.0.1:1/", "does not answer"),
        (postgres.URL_ENV_VAR, "not a url at all", "such as postgresql://"),
        (mongo.URL_ENV_VAR, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200", "does not answer"),
        (mongo.URL_ENV_VAR, "not a url at all", "such as mongodb://"),
    ],
)
def test_stack_names_unusable_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """An external server that cannot be used is named."""
    monkeypatch.setenv(variable, value)
    running = postgres.running if variable == postgres.URL_ENV_VAR else mongo.running
    with pytest.raises(StackError, match=message) as caught, running(folder, "password"):
        pass
    assert variable in str(caught.value)


def test_stack_uses_external_servers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """External servers are used where they are named."""
    with stack_lock(folder), databases(folder) as ours:
        pg, admin = ours.postgres, ours.mongo_admin
        monkeypatch.setenv(postgres.URL_ENV_VAR, f"postgresql://{pg.admin}:{pg.password}@{pg.host}:{pg.port}/postgres")
        monkeypatch.setenv(
            mongo.URL_ENV_VAR, f"mongodb://{admin.login}:{admin.password}@{admin.host}:{admin.port}/?authSource=admin"
        )
        (folder / "theirs").mkdir()
        with databases(folder / "theirs") as theirs:
            assert (theirs.postgres.port, theirs.mongo.port) == (pg.port, admin.port)
            assert theirs.postgres.pid is theirs.mongo.pid is None
            with theirs.mongo.client() as client:
                client["bi"]["anything"].insert_one({})
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host=pg.host, port=pg.port, user="postgres", password="wrong", dbname="postgres")


def test_stack_completes_replica_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica set that was interrupted before it had an administrator gets one."""
    ensure_admin_user = mongo.ensure_admin_user

    def interrupted(server: mongo.Mongo) -> None:
        mongo.init_replica_set(server, f"127.0.0.1:{server.port}")  # as the next start does first
        ensure_admin_user(server)

    monkeypatch.setattr(mongo, "ensure_admin_user", interrupted)
    with mongo.running(tmp_path, "secret") as server, server.client() as client:
        assert client.admin.command("ping")["ok"] == 1


def test_command_uses_running_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While `make up` runs, `make report` uses its databases; while another command runs, it is refused."""
    monkeypatch.setattr(os, "environ", {**os.environ})
    with stack_lock(tmp_path):
        with pytest.raises(StackRunningError, match="already running"), commands.connected_settings(tmp_path):
            pass
        with demo_regions.shared_env(tmp_path, {"MEG_REGIONS": "mars"}):
            assert (tmp_path / "environment.json").stat().st_mode & 0o077 == 0
            with commands.connected_settings(tmp_path) as settings:
                assert settings.regions == ("mars",)
    assert demo_regions.running_env(tmp_path) == {}
