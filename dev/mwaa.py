"""`make mwaa`: builds the content of an Amazon MWAA bucket in dist/mwaa/.

MWAA has no include/: it syncs dags/ and unpacks plugins.zip, so the SQL and the charts are packed into the package.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from dev.console import console
from dev.processes import StackError

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist" / "mwaa"
DEFAULT_AIRFLOW = "3.2.1"
_PINS = ROOT / "dev" / "airflow_pins"
_PYTHON = "3.12"
_ENTRY_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of each file in plugins.zip: the archive changes, and MWAA updates, only when a file does."""
_INCLUDED = ("sql", "charts", "atlas", "mongo", "meg", "docs")
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9._-]+")
_NO_CONSTRAINTS = """\
# No --constraint of this Airflow's: it refuses the providers' common-compat. MWAA adds its own constraints unless
# this file contains that word, even in a comment; it keeps the versions of its own packages all the same.
"""


def build_bundle(airflow: str, out_dir: Path = DIST) -> Path:
    """Write the bundle for an environment with this version of Airflow, and return its folder.

    Args:
        airflow: The version of Airflow.
        out_dir: The folder, whose files are replaced, except for startup.sh, which the operator may have edited.

    Raises:
        StackError: MWAA does not have this version, or the DAGs do not support it.
    """
    pins = _PINS / f"{airflow}.in"
    if not pins.exists():
        known = ", ".join(sorted(path.stem for path in _PINS.glob("*.in")))
        raise StackError(
            f"Airflow {airflow} is not supported on Amazon MWAA. Hint: name one of {known}: make mwaa AIRFLOW=..."
        )
    shutil.rmtree(out_dir / "dags", ignore_errors=True)
    shutil.copytree(ROOT / "dags", out_dir / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    with zipfile.ZipFile(out_dir / "plugins.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(_bundled_files()):
            entry = zipfile.ZipInfo(name, _ENTRY_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    (out_dir / "requirements.txt").write_text(_requirements(airflow, pins.read_text()))
    if not (out_dir / "startup.sh").exists():
        shutil.copy(ROOT / "dev" / "mwaa-startup.sh", out_dir / "startup.sh")
    shutil.copy(ROOT / "docs" / "mwaa.md", out_dir / "README.md")
    return out_dir


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


def _requirements(airflow: str, pins: str) -> str:
    """The packages of requirements.txt, in the versions that this Airflow's constraints have."""
    packages = {name for line in (ROOT / "requirements.txt").read_text().splitlines() if (name := _package_name(line))}
    requirements = [
        line
        for line in pins.splitlines()
        if _package_name(line) in packages | {"apache-airflow-providers-common-compat"}
    ]
    url = f"https://raw.githubusercontent.com/apache/airflow/constraints-{airflow}/constraints-{_PYTHON}.txt"
    header = _NO_CONSTRAINTS if airflow.startswith("3.0.") else f'--constraint "{url}"\n'
    return header + "".join(f"{line}\n" for line in requirements)


def _package_name(line: str) -> str:
    match = _PACKAGE_NAME.match(line)
    return match.group().lower() if match else ""


if __name__ == "__main__":
    version = os.environ.get("AIRFLOW") or DEFAULT_AIRFLOW
    try:
        bundle = build_bundle(version)
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    console.print(f"{bundle.relative_to(ROOT)}/, for Airflow {version}; README.md says where each file goes")
