"""`make mwaa`: builds the content of an Amazon MWAA bucket in dist/mwaa/.

MWAA has no include/: it syncs dags/ and unpacks plugins.zip, so the SQL and the charts are packed into the package.
`WHEELS=1` packs all Python packages too, for a private web server, which has no access to a package index.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bi_ops.settings import to_bool
from dev.console import console
from dev.mwaa_wheels import PYTHON, download_wheels
from dev.processes import StackError

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist" / "mwaa"
DEFAULT_AIRFLOW = "3.2.1"
_PINS = ROOT / "dev" / "airflow_pins"
_ENTRY_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of each file in plugins.zip: the archive changes, and MWAA updates, only when a file does."""
_INCLUDED = ("sql", "charts", "atlas", "mongo", "meg", "docs")
OUTSIDE_CONSTRAINTS = ("3.0.6",)
"""Versions whose constraints have an older common-compat than the DAGs need; all else is within the constraints."""
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9._-]+")
_NO_CONSTRAINTS = """\
# No --constraint of this Airflow's: it refuses the providers' common-compat. MWAA adds its own constraints unless
# this file contains that word, even in a comment; it keeps the versions of its own packages all the same.
"""
_OFFLINE = """\
--find-links /usr/local/airflow/plugins
--no-index
"""
"""Where MWAA unpacks plugins.zip. MWAA adds its own copy of Airflow's constraints, so no address is needed."""


def build_bundle(airflow: str, out_dir: Path = DIST, *, wheels: bool = False) -> Path:
    """Write the bundle for an environment with this version of Airflow, and return its folder.

    Args:
        airflow: The version of Airflow.
        out_dir: The folder, whose files are replaced, except for startup.sh, which the operator may have edited.
        wheels: Whether plugins.zip contains the Python packages too, which then need no package index.

    Raises:
        StackError: MWAA does not have this version, or the DAGs do not support it; or a wheel cannot be downloaded.
    """
    if airflow not in supported_versions():
        known = ", ".join(supported_versions())
        raise StackError(
            f"Airflow {airflow} is not supported on Amazon MWAA. Hint: name one of {known}: make mwaa AIRFLOW=..."
        )
    shutil.rmtree(out_dir / "dags", ignore_errors=True)
    shutil.copytree(ROOT / "dags", out_dir / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    with tempfile.TemporaryDirectory() as folder:
        files = list(_bundled_files())
        if wheels:
            pins = _PINS / f"{airflow}.txt"
            wheel_files = download_wheels(_packages(airflow), airflow, pins, Path(folder))
            files += [(file.name, file) for file in wheel_files]
        _write_zip(out_dir / "plugins.zip", files)
    (out_dir / "requirements.txt").write_text(requirements_text(airflow, wheels=wheels))
    if not (out_dir / "startup.sh").exists():
        shutil.copy(ROOT / "dev" / "mwaa-startup.sh", out_dir / "startup.sh")
    shutil.copy(ROOT / "docs" / "mwaa.md", out_dir / "README.md")
    return out_dir


def supported_versions() -> list[str]:
    """The versions of Airflow for which a bundle can be built."""
    return sorted(path.stem for path in _PINS.glob("[0-9]*.in"))


def constraints_url(airflow: str) -> str:
    """The address of this Airflow's constraints for MWAA's Python."""
    return f"https://raw.githubusercontent.com/apache/airflow/constraints-{airflow}/constraints-{PYTHON}.txt"


def _write_zip(path: Path, files: list[tuple[str, Path]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, file in sorted(files):
            entry = zipfile.ZipInfo(name, _ENTRY_TIME)
            entry.external_attr = 0o644 << 16
            compression = zipfile.ZIP_STORED if file.suffix == ".whl" else zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes(), compression)


def _bundled_files() -> Iterator[tuple[str, Path]]:
    plugins = ROOT / "plugins"
    yield ".airflowignore", plugins / ".airflowignore"
    for file in plugins.glob("bi_ops/**/*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield str(file.relative_to(plugins)), file
    for folder in _INCLUDED:
        for file in (ROOT / "include" / folder).glob("**/*"):
            if file.is_file():
                yield f"bi_ops/include/{file.relative_to(ROOT / 'include')}", file


def _packages(airflow: str) -> list[str]:
    """The packages of requirements.txt, in the versions that this Airflow's constraints have."""
    names = {name for line in (ROOT / "requirements.txt").read_text().splitlines() if (name := _package_name(line))}
    names.add("apache-airflow-providers-common-compat")
    return [line for line in (_PINS / f"{airflow}.in").read_text().splitlines() if _package_name(line) in names]


def requirements_text(airflow: str, *, wheels: bool) -> str:
    """The content of requirements.txt.

    Args:
        airflow: The version of Airflow.
        wheels: Whether plugins.zip contains the packages.
    """
    constraints = "" if wheels else f'--constraint "{constraints_url(airflow)}"\n'
    if airflow in OUTSIDE_CONSTRAINTS:
        constraints = _NO_CONSTRAINTS
    return (_OFFLINE if wheels else "") + constraints + "".join(f"{line}\n" for line in _packages(airflow))


def _package_name(line: str) -> str:
    match = _PACKAGE_NAME.match(line)
    return match.group().lower() if match else ""


if __name__ == "__main__":
    version = os.environ.get("AIRFLOW") or DEFAULT_AIRFLOW
    try:
        bundle = build_bundle(version, wheels=to_bool(os.environ.get("WHEELS", "")))
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    console.print(f"{bundle.relative_to(ROOT)}/, for Airflow {version}; README.md says where each file goes")
