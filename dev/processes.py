"""Runs servers as child processes: starts them with a log, stops them, and ends those that a killed parent left."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

STACK_ENV_VAR = "MEG_BI_STACK"
"""The environment variable that every process of a stack inherits; its value is the stack's folder."""

_PR_SET_PDEATHSIG = 1
_LOW_PRIORITY = 10


class StackError(Exception):
    """The stack cannot be started or used; the message says why, with a hint."""


class StackRunningError(StackError):
    """Another process runs the stack."""


class PortTakenError(Exception):
    """Another program listens on the port that was chosen for a server."""


class Service:
    """One server of the stack: a child process that writes to a log file.

    Args:
        name: Its name in messages.
        command: Its command line.
        log: The file to which its output is appended.
        environment: Its whole environment.
        stop_with: The signal on which it ends cleanly.
        user: The account to run it as; None for the current one.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        stop_with: signal.Signals = signal.SIGTERM,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_with = stop_with
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **run_as(user),
                preexec_fn=lambda: _die_with_parent(stop_with),  # noqa: PLW1509 - one prctl call, no lock taken
            )

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `ready` returns true.

        Raises:
            StackError: The server ended, or was not ready in time; the message has the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check_running()
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready within {seconds:g} s.{self._tail()}")
            time.sleep(0.1)

    def check_running(self) -> None:
        """Check that the server has not ended.

        Raises:
            StackError: It has; the message has the end of its log.
        """
        if self.process.poll() is not None:
            raise StackError(f"{self.name} ended with status {self.process.returncode}.{self._tail()}")

    def listens_on(self, port: int) -> bool:
        """Whether this server, or a process that it started, listens on this port of 127.0.0.1.

        Raises:
            PortTakenError: Another program does.
        """
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        if port not in self._listening_ports():
            raise PortTakenError(f"{self.name} cannot have port {port}: another program listens on it.")
        return True

    def _processes(self) -> list[psutil.Process]:
        processes: list[psutil.Process] = []
        with suppress(psutil.Error):
            processes.append(psutil.Process(self.process.pid))
            processes += processes[0].children(recursive=True)
        return processes

    def _listening_ports(self) -> set[int]:
        ports: set[int] = set()
        for process in self._processes():
            with suppress(psutil.Error):  # such as a child that has just ended
                connections = process.net_connections("tcp")
                ports |= {
                    connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN
                }
        return ports

    def lower_priority(self) -> None:
        """Let other processes have the processor before this server and its child processes, and those to come."""
        for process in self._processes():
            with suppress(psutil.Error):
                process.nice(_LOW_PRIORITY)

    def terminate(self) -> None:
        """Signal the server to end cleanly, without waiting for it."""
        if self.process.poll() is None:
            self.process.send_signal(self._stop_with)

    def wait(self, seconds: float = 20) -> None:
        """Wait for the server to end, and kill it after `seconds`."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-12:]
        return "\n".join([f" The end of {self.log}:", *(f"    {line}" for line in lines)])


def stop(*services: Service) -> None:
    """End servers that do not depend on each other, all at once."""
    for service in services:
        service.terminate()
    for service in services:
        service.wait()


def run_as(user: str | None) -> dict[str, Any]:
    """The arguments with which `subprocess` runs a command as this account; empty for None."""
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}


def _die_with_parent(signal_: signal.Signals) -> None:
    """Have the kernel send this signal to the current process when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal_))


def die_with_parent() -> None:
    """Have the current process end cleanly when its parent dies."""
    _die_with_parent(signal.SIGTERM)


def kill_stale_processes(stack: Path, seconds: float = 15) -> None:
    """End every process that was started for the stack in this folder, and its child processes."""
    current = psutil.Process()
    marked = {process for process in psutil.process_iter() if _belongs_to(process, stack)}
    marked -= {current, *current.parents()}
    stale = marked.union(*map(_children, marked))
    for process in stale:
        _send_signal(process, signal.SIGINT)  # a fast shutdown to PostgreSQL, which waits for its clients on SIGTERM
    alive = _wait_for_end(stale, seconds)
    for process in alive:
        _send_signal(process, signal.SIGKILL)
    _wait_for_end(alive, seconds)


def _wait_for_end(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end, and return those still alive; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _belongs_to(process: psutil.Process, stack: Path) -> bool:
    """By its environment, or by its log where Airflow's workers have overwritten their environment with a title."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if STACK_ENV_VAR in (environment := process.environ()):
            return environment[STACK_ENV_VAR] == str(stack)
        return Path(f"/proc/{process.pid}/fd/1").readlink().parent == stack / "logs"
    except (psutil.Error, OSError):
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _send_signal(process: psutil.Process, signal_: signal.Signals) -> None:
    try:
        process.send_signal(signal_)
    except psutil.NoSuchProcess:
        return


def free_port(preferred: int = 0) -> int:
    """A free TCP port on loopback: the preferred one where that is free.

    Raises:
        StackError: No port is free.
    """
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StackError("No TCP port is free on 127.0.0.1.")


def write_secret(file: Path, text: str) -> None:
    """Write a secret atomically to a file that only its owner may read."""
    unfinished = file.with_name(f"{file.name}.new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.rename(file)


def child_env(stack: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The current environment for a process of the stack: with its folder, and .venv's commands first on the PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    loopback = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return {**os.environ, **loopback, **extra, "PATH": path, STACK_ENV_VAR: str(stack)}
