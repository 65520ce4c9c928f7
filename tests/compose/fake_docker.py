"""Services of a Compose file as Docker would start them: on a network and with files of their own, in their order.

What an image would bring, its programs and its entry point, is this machine's, under the image's paths.
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
"""Top-level folders that a container has to itself; the others are this machine's."""


@dataclass(frozen=True)
class Image:
    """What an image brings.

    Attributes:
        entrypoint: What its command is run by.
        environment: What it sets.
        files: Its own files and folders, by their paths in the container.
    """

    entrypoint: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


class Containers:
    """The services that have been started, on one network where each is known by its name.

    Args:
        composed: The Compose file as `docker-compose config` prints it.
        images: What each image brings, by its name up to the colon.
        folder: Where the volumes and the logs are.
    """

    def __init__(self, composed: Mapping[str, Any], images: Mapping[str, Image], folder: Path) -> None:
        self._services = composed["services"]
        self._images = images
        self._folder = folder
        self._running: dict[str, Service] = {}
        self._done: set[str] = set()
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
        """A network that nothing else is on; what was started in it ends with it."""
        unshared = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep infinity"]
        self._net = subprocess.Popen(unshared, env=child_env(self._folder, {}))
        try:
            self._wait_for_network()
            yield
        finally:
            stop(*reversed(self._running.values()))
            self._net.kill()
            self._net.wait()

    def _wait_for_network(self, seconds: float = 20) -> None:
        """Until it is another one than this machine's, or the services would be open to everybody."""
        deadline = time.monotonic() + seconds
        while Path(f"/proc/{self._net.pid}/cmdline").read_bytes().split(b"\0")[0] != b"sleep":  # as which it has lo up
            assert self._net.poll() is None, "there is no network namespace"
            assert time.monotonic() < deadline, "the network namespace did not come up"
            time.sleep(0.02)
        here, there = (Path(f"/proc/{which}/ns/net").readlink() for which in ("self", self._net.pid))
        assert here != there

    def up(self, *names: str) -> None:
        """Start services after what they depend on, each once that is as it must be."""
        for name in names:
            if name in self._running or name in self._done:
                continue
            service = self._services[name]
            conditions = {each: how["condition"] for each, how in service.get("depends_on", {}).items()}
            self.up(*conditions)
            for each, condition in conditions.items():
                self._wait_for(each, condition)
            self.order.append(name)
            self._running[name] = self._start(name)

    def is_healthy(self, name: str) -> bool:
        """What its health check says."""
        kind, *words = self._services[name]["healthcheck"]["test"]
        command = [each.replace("$$", "$") for each in words]
        return self.run(name, ["/bin/sh", "-c", *command] if kind == "CMD-SHELL" else command).returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        """Wait until its health check says so, for as long as Docker would at most."""
        check = self._services[name]["healthcheck"]
        seconds = check["retries"] * _seconds(check["interval"]) + _seconds(check.get("start_period", "0s"))
        self._running[name].wait_until(lambda: self.is_healthy(name), seconds=seconds)

    def run(self, name: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's container, as `docker exec` does."""
        words = self._inside(name, command)
        return subprocess.run(words, env=self._environment(name), capture_output=True, text=True, check=False)

    def log(self, name: str) -> str:
        """What a service has written."""
        return (self._folder / "logs" / f"{name}.log").read_text(errors="replace")

    def _wait_for(self, name: str, condition: str) -> None:
        if condition == "service_healthy":
            self.wait_until_healthy(name)
        elif condition == "service_completed_successfully" and name not in self._done:
            status = self._running.pop(name).process.wait(300)
            assert status == 0, f"{name} ended with {status}: {self.log(name)[-2000:]}"
            self._done.add(name)

    def _start(self, name: str) -> Service:
        service = self._services[name]
        command = [each.replace("$$", "$") for each in service["command"]]
        words = self._inside(name, [*self._image(name).entrypoint, *command])
        return Service(name, words, log=self._folder / "logs" / f"{name}.log", environment=self._environment(name))

    def _image(self, name: str) -> Image:
        return self._images[self._services[name]["image"].split(":")[0]]

    def _environment(self, name: str) -> dict[str, str]:
        """The image's and the service's, over the mark by which strays are found."""
        ours = child_env(self._folder, {})
        kept = {key: ours[key] for key in ("PATH", "MEG_BI_STACK")}
        given = {key: str(value) for key, value in self._services[name].get("environment", {}).items()}
        return {**kept, "HOME": "/var", **self._image(name).environment, **given}

    def _inside(self, name: str, command: Sequence[str]) -> list[str]:
        """The command, in the network and over a root of its own in which the service's volumes are."""
        service, image = self._services[name], self._image(name)
        root = shlex.quote(str(self._folder / "roots" / name))
        script = [
            "set -e; mount --make-rprivate /",
            f"mkdir -p {root}; mount -t tmpfs tmpfs {root}",
            *(f"mkdir -p {root}/{each}" for each in _PRIVATE),
            "for each in /*; do",
            f'case " {" ".join(_PRIVATE)} " in *" ${{each#/}} "*) continue;; esac',
            f'if [ -L "$each" ]; then cp -P "$each" {root}$each',
            f'elif [ -d "$each" ]; then mkdir -p {root}$each; mount --rbind "$each" {root}$each; fi',
            "done",
            *(f"mount --bind {shlex.quote(str(self._folder / Path(path).name))} {root}{path}" for path in self._etc),
        ]
        for target, source in image.files.items():
            script += _mounted(source, f"{root}{target}")
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            folder = Path(source) if source.startswith("/") else self._folder / "volumes" / source
            if not source.startswith("/"):
                folder.mkdir(parents=True, exist_ok=True)
            script += _mounted(folder, f"{root}{target}")
        workdir = service.get("working_dir", "/")
        script.append(f'exec chroot {root} /bin/sh -c \'cd {workdir} && exec "$@"\' sh "$@"')
        return [
            *("nsenter", f"--net=/proc/{self._net.pid}/ns/net", "unshare", "--mount"),
            *("sh", "-c", "\n".join(script), "sh", *command),
        ]


def _mounted(source: Path, target: str) -> list[str]:
    made = f"mkdir -p {target}" if source.is_dir() else f"mkdir -p $(dirname {target}); touch {target}"
    return [made, f"mount --bind {shlex.quote(str(source))} {target}"]


def _seconds(text: str) -> float:
    return sum(float(part[:-1]) * {"s": 1, "m": 60}[part[-1]] for part in text.replace("m", "m ").split())
