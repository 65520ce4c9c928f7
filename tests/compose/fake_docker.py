"""Runs the services of a Compose file as Docker does: in order, on their own network, with their own files.

Programs and entry points are the local machine's, under the paths that they have in the images.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.processes import Service, child_env, stop

_PRIVATE = ("opt", "var", "run", "data", "keys", "app")
"""Top-level folders that a container does not share; the others are the local machine's."""


@dataclass(frozen=True)
class Image:
    """The content of an image.

    Attributes:
        entrypoint: The command line in front of a service's command.
        environment: Its environment variables.
        files: Its files and folders, by their paths in the container.
    """

    entrypoint: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


class Containers:
    """The started services, on one network in which each has its name.

    Args:
        config: The Compose file as `docker-compose config` prints it.
        images: The images, by their names up to the colon.
        folder: The folder of the volumes and the logs.
    """

    def __init__(self, config: Mapping[str, Any], images: Mapping[str, Image], folder: Path) -> None:
        self._services = config["services"]
        self._images = images
        self._folder = folder
        self._running: dict[str, Service] = {}
        self._completed: set[str] = set()
        self.order: list[str] = []
        names = "::1 localhost\n" + "".join(f"127.0.0.1 {name}\n" for name in ("localhost", *self._services))
        self._etc = {
            "/etc/hosts": names,
            "/etc/passwd": f"{Path('/etc/passwd').read_text()}server:x:999:999::/:/bin/sh\n",
        }
        for path, text in self._etc.items():
            (folder / Path(path).name).write_text(text)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Create the network for the block; its services end with it."""
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep infinity"]
        self._net = subprocess.Popen(command, env=child_env(self._folder, {}))
        try:
            self._wait_for_network()
            yield
        finally:
            stop(*reversed(self._running.values()))
            self._net.kill()
            self._net.wait()

    def _wait_for_network(self, seconds: float = 20) -> None:
        """Wait until the network differs from the machine's own, on which services would be reachable by others."""
        deadline = time.monotonic() + seconds
        program = Path(f"/proc/{self._net.pid}/cmdline")
        while program.read_bytes().split(b"\0")[0] != b"sleep":  # which starts once lo is up
            assert self._net.poll() is None, "there is no network namespace"
            assert time.monotonic() < deadline, "the network namespace did not come up"
            time.sleep(0.02)
        own_namespace, namespace = (Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", self._net.pid))
        assert own_namespace != namespace

    def up(self, *names: str) -> None:
        """Start services, each once its dependencies fulfil their conditions."""
        for name in names:
            if name in self._running or name in self._completed:
                continue
            service = self._services[name]
            conditions = {other: dependency["condition"] for other, dependency in service.get("depends_on", {}).items()}
            self.up(*conditions)
            for other, condition in conditions.items():
                self._wait_for(other, condition)
            self.order.append(name)
            self._running[name] = self._start(name)

    def is_healthy(self, name: str) -> bool:
        """Whether the service's health check succeeds."""
        kind, *arguments = self._services[name]["healthcheck"]["test"]
        command = [argument.replace("$$", "$") for argument in arguments]
        return self.run(name, ["/bin/sh", "-c", *command] if kind == "CMD-SHELL" else command).returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        """Wait until the health check succeeds, for as long as Docker would wait."""
        check = self._services[name]["healthcheck"]
        seconds = check["retries"] * parse_duration(check["interval"]) + parse_duration(check.get("start_period", "0s"))
        self._running[name].wait_until(lambda: self.is_healthy(name), seconds=seconds)

    def run(self, name: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's container, as `docker exec` does."""
        command_line = self._wrap(name, command)
        return subprocess.run(command_line, env=self._environment(name), capture_output=True, text=True, check=False)

    def log(self, name: str) -> str:
        """The output of a service."""
        return (self._folder / "logs" / f"{name}.log").read_text(errors="replace")

    def _wait_for(self, name: str, condition: str) -> None:
        if condition == "service_healthy":
            self.wait_until_healthy(name)
        elif condition == "service_completed_successfully" and name not in self._completed:
            status = self._running.pop(name).process.wait(300)
            assert status == 0, f"{name} ended with {status}: {self.log(name)[-2000:]}"
            self._completed.add(name)

    def _start(self, name: str) -> Service:
        service = self._services[name]
        command = [argument.replace("$$", "$") for argument in service["command"]]
        command_line = self._wrap(name, [*self._image(name).entrypoint, *command])
        return Service(
            name, command_line, log=self._folder / "logs" / f"{name}.log", environment=self._environment(name)
        )

    def _image(self, name: str) -> Image:
        return self._images[self._services[name]["image"].split(":")[0]]

    def _environment(self, name: str) -> dict[str, str]:
        """The image's and the service's variables, and the one by which stale processes are found."""
        stack_env = child_env(self._folder, {})
        stack_variables = {key: stack_env[key] for key in ("PATH", "MEG_BI_STACK")}
        declared = {key: str(value) for key, value in self._services[name].get("environment", {}).items()}
        return {**stack_variables, "HOME": "/var", **self._image(name).environment, **declared}

    def _wrap(self, name: str, command: Sequence[str]) -> list[str]:
        """The command line that runs a command in the network, with the service's own root and volumes."""
        service, image = self._services[name], self._image(name)
        root = shlex.quote(str(self._folder / "roots" / name))
        script = [
            "set -e; mount --make-rprivate /",
            f"mkdir -p {root}; mount -t tmpfs tmpfs {root}",
            *(f"mkdir -p {root}/{folder}" for folder in _PRIVATE),
            "for each in /*; do",
            f'case " {" ".join(_PRIVATE)} " in *" ${{each#/}} "*) continue;; esac',
            f'if [ -L "$each" ]; then cp -P "$each" {root}$each',
            f'elif [ -d "$each" ]; then mkdir -p {root}$each; mount --rbind "$each" {root}$each; fi',
            "done",
            *(f"mount --bind {shlex.quote(str(self._folder / Path(path).name))} {root}{path}" for path in self._etc),
        ]
        for target, source in image.files.items():
            script += _mount_commands(source, f"{root}{target}")
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            folder = Path(source) if source.startswith("/") else self._folder / "volumes" / source
            if not source.startswith("/"):
                folder.mkdir(parents=True, exist_ok=True)
            script += _mount_commands(folder, f"{root}{target}")
        workdir = service.get("working_dir", "/")
        script.append(f'exec chroot {root} /bin/sh -c \'cd {workdir} && exec "$@"\' sh "$@"')
        return [
            *("nsenter", f"--net=/proc/{self._net.pid}/ns/net", "unshare", "--mount"),
            *("sh", "-c", "\n".join(script), "sh", *command),
        ]


def _mount_commands(source: Path, target: str) -> list[str]:
    create_target = f"mkdir -p {target}" if source.is_dir() else f"mkdir -p $(dirname {target}); touch {target}"
    return [create_target, f"mount --bind {shlex.quote(str(source))} {target}"]


def parse_duration(text: str) -> float:
    """The seconds of a duration such as `1m30s`."""
    return sum(float(part[:-1]) * {"s": 1, "m": 60}[part[-1]] for part in text.replace("m", "m ").split())
