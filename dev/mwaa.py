"""`make mwaa`: what Amazon MWAA takes from its bucket, in dist/mwaa/.

MWAA has no include/: it syncs dags/ and unpacks plugins.zip, in which the SQL and the charts travel inside the package.
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
_PINS = ROOT / "dev" / "compat"
_PYTHON = "3.12"
_ALWAYS_THE_SAME = (1980, 1, 1, 0, 0, 0)
"""The time of each packed file: the same files make the same plugins.zip, and MWAA is not updated for nothing."""
_PACKED = ("sql", "charts", "mongo")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_NO_CONSTRAINTS = """\
# No --constraint of this Airflow's own: it would refuse the providers' common-compat. MWAA looks for that word, even
# in a comment, before it forces its own; what it needs itself it holds on to all the same.
"""


def build_bundle(airflow: str, out_dir: Path = DIST) -> Path:
    """Write everything for an environment of this version of Airflow, and return the folder.

    Args:
        airflow: The version.
        out_dir: The folder; what was in it goes, but for a startup.sh, which somebody may have edited.

    Raises:
        StackError: It is none that MWAA has and these DAGs run on.
    """
    pins = _PINS / f"{airflow}.in"
    if not pins.exists():
        known = ", ".join(sorted(each.stem for each in _PINS.glob("*.in")))
        raise StackError(
            f"There is no Amazon MWAA with Airflow {airflow} here. Name one of {known}: make mwaa AIRFLOW=..."
        )
    shutil.rmtree(out_dir / "dags", ignore_errors=True)
    shutil.copytree(ROOT / "dags", out_dir / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    with zipfile.ZipFile(out_dir / "plugins.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, file in sorted(_packed()):
            entry = zipfile.ZipInfo(name, _ALWAYS_THE_SAME)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    (out_dir / "requirements.txt").write_text(_requirements(airflow, pins.read_text()))
    if not (out_dir / "startup.sh").exists():
        shutil.copy(ROOT / "dev" / "mwaa-startup.sh", out_dir / "startup.sh")
    shutil.copy(ROOT / "docs" / "mwaa.md", out_dir / "README.md")
    return out_dir


def _packed() -> Iterator[tuple[str, Path]]:
    plugins = ROOT / "plugins"
    yield ".airflowignore", plugins / ".airflowignore"
    for file in plugins.glob("bi_ops/**/*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield str(file.relative_to(plugins)), file
    for folder in _PACKED:
        for file in (ROOT / "include" / folder).glob("**/*"):
            if file.is_file():
                yield f"bi_ops/include/{file.relative_to(ROOT / 'include')}", file


def _requirements(airflow: str, pins: str) -> str:
    """What requirements.txt names, in the versions that this Airflow's constraints have."""
    ours = {name for line in (ROOT / "requirements.txt").read_text().splitlines() if (name := _named(line))}
    wanted = [line for line in pins.splitlines() if _named(line) in ours | {"apache-airflow-providers-common-compat"}]
    address = f"https://raw.githubusercontent.com/apache/airflow/constraints-{airflow}/constraints-{_PYTHON}.txt"
    head = _NO_CONSTRAINTS if airflow.startswith("3.0.") else f'--constraint "{address}"\n'
    return head + "".join(f"{line}\n" for line in wanted)


def _named(line: str) -> str:
    found = _NAME.match(line)
    return found.group().lower() if found else ""


if __name__ == "__main__":
    version = os.environ.get("AIRFLOW") or DEFAULT_AIRFLOW
    try:
        made = build_bundle(version)
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    console.print(f"{made.relative_to(ROOT)}/, for Airflow {version}; README.md says where to")
