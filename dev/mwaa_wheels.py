"""The wheels of an Amazon MWAA bundle whose web server has no access to a package index."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from dev.processes import StackError

PYTHON = "3.12"
"""The Python of MWAA's images, which are Amazon Linux 2023 on x86-64 with glibc 2.34."""
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
_UV = str(Path(sys.executable).with_name("uv"))


def download_wheels(requirements: list[str], airflow: str, pins: Path, folder: Path) -> list[Path]:
    """Download the requirements and what they need that an image with this Airflow does not have.

    Args:
        requirements: Packages with their versions, as in requirements.txt.
        airflow: The version of Airflow.
        pins: The versions of everything else.
        folder: Where to put the wheels.

    Returns:
        The wheels, by name.

    Raises:
        StackError: A package has no wheel for MWAA, or there is no package index.
    """
    in_image = _resolve([f"apache-airflow=={airflow}"], pins)
    listed = [line for line in requirements if not line.startswith("#")]
    extra = set(_resolve([f"apache-airflow=={airflow}", *listed], pins)) - set(in_image)
    names = {line.split("==")[0].split("[")[0] for line in listed}
    direct = {line for line in _resolve(listed, pins) if line.split("==")[0] in names}
    platforms = [option for name in _PLATFORMS for option in ("--platform", f"{name}_x86_64")]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    options = ["--only-binary=:all:", "--python-version", PYTHON, *platforms, "--dest", str(folder)]
    _run([*pip, *options, *sorted(extra | direct)])
    return sorted(folder.glob("*.whl"))


def _resolve(requirements: list[str], pins: Path) -> list[str]:
    """The requirements and all that they need on MWAA, as lines such as `pymongo==4.16.0`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements))
        file.flush()
        options = ["--no-header", "--no-annotate", "--no-emit-index-url", "--python-version", PYTHON]
        target = ["--python-platform", "x86_64-manylinux_2_34", "--constraint", str(pins)]
        return _run([_UV, "pip", "compile", "--quiet", *options, *target, file.name]).splitlines()


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise StackError(
            f"The wheels for Amazon MWAA cannot be downloaded:\n{result.stderr.strip()}\n"
            "Hint: run make mwaa WHEELS=1 on a machine that reaches a package index."
        )
    return result.stdout
