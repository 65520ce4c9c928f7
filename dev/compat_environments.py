"""The environments of `make compat`: which Airflow runs on which Python, and their virtual environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dev.processes import StackError

ROOT = Path(__file__).parents[1]
WORK_DIR = ROOT / ".local" / "compat"
PINS_DIR = ROOT / "dev" / "airflow_pins"
CURRENT_AIRFLOW = version("apache-airflow")
MWAA = "Amazon MWAA"
_UV = str(Path(sys.executable).with_name("uv"))


@dataclass(frozen=True)
class Environment:
    """One Airflow on one Python.

    Attributes:
        airflow: The version of Airflow.
        python: The version of Python, such as `3.12`.
        pins: The file of its packages.
        platform: The platform that runs it, with the image's version; empty for Compose and Kubernetes.
    """

    airflow: str
    python: str
    pins: Path
    platform: str = ""

    @property
    def name(self) -> str:
        """Names the environment, such as `3.2.1-python-3.12` or `astro-3.3-2-python-3.14`."""
        source = self.airflow if self.pins.parent != PINS_DIR else self.pins.stem
        return f"{source}-python-{self.python}"


def _current(python: str) -> Environment:
    return Environment(CURRENT_AIRFLOW, python, ROOT / "dev" / "requirements.txt")


ENVIRONMENTS = (
    Environment("3.0.6", "3.12", PINS_DIR / "3.0.6.txt", MWAA),
    Environment("3.2.1", "3.12", PINS_DIR / "3.2.1.txt", MWAA),
    Environment("3.3.1", "3.12", PINS_DIR / "3.3.1.txt", MWAA),
    Environment("3.3.0", "3.14", PINS_DIR / "astro-3.3-2.txt", "Astro Runtime 3.3-2"),
    Environment("3.3.1", "3.12", PINS_DIR / "astro-3.3-5.txt", "Astro Runtime 3.3-5"),
    *map(_current, ("3.10", "3.12", "3.13", "3.14")),
)
"""Each Airflow on its platform's Python, and the newest on every Python. All of both would take an hour."""


def select_environments(only: str) -> list[Environment]:
    """The environments whose names contain one of these words, separated by commas; all if there is none.

    Raises:
        StackError: A word is in no name.
    """
    words = [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if not any(word in environment.name for environment in ENVIRONMENTS):
            names = ", ".join(environment.name for environment in ENVIRONMENTS)
            raise StackError(f"ONLY={word} selects no environment. Expected: a part of one of {names}.")
    return [item for item in ENVIRONMENTS if not words or any(word in item.name for word in words)]


def find_python(python: str) -> Path | None:
    """An interpreter of this version: on the PATH, of pyenv or of uv; None if there is none."""
    return next((Path(path) for path in _candidates(python) if _is_version(path, python)), None)


def _candidates(python: str) -> Iterator[str]:
    if on_path := shutil.which(f"python{python}"):
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob(f"versions/{python}.*/bin/python{python}")))
    command = [_UV, "python", "find", "--offline", "--no-project", python]
    yield subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _is_version(path: str, python: str) -> bool:
    """Whether the interpreter runs, which a shim of pyenv may not, and is of this version."""
    if not path:
        return False
    command = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == python


def ensure_venv(environment: Environment, interpreter: Path) -> Path:
    """The Python of a virtual environment with the pinned packages, created again whenever the pins change.

    Raises:
        StackError: A package cannot be installed.
    """
    folder = WORK_DIR / environment.name
    installed_pins, python = folder / "pins.txt", folder / "venv" / "bin" / "python"
    if not installed_pins.exists() or installed_pins.read_text() != environment.pins.read_text():
        installed_pins.unlink(missing_ok=True)
        create_venv(folder / "venv", interpreter, ["-r", str(environment.pins)])
        shutil.copy(environment.pins, installed_pins)
    return python


def create_venv(venv: Path, interpreter: Path, requirements: list[str]) -> None:
    """Create a virtual environment from scratch, with these requirements as pip takes them.

    Raises:
        StackError: A package cannot be installed.
    """
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    # Resolved, because Python looks for its library beside the file that the environment names.
    for step in (
        ["venv", "--quiet", "--python", str(interpreter.resolve()), str(venv)],
        ["pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), *requirements],
    ):
        result = subprocess.run([_UV, *step], capture_output=True, text=True, check=False)
        if result.returncode:
            raise StackError(f"{venv.parent.name} cannot be installed:\n{result.stderr}")
