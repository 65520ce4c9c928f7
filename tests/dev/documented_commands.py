"""The `airflow` and `make` commands that the documentation shows, and which of them the tests run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

_NAMES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_COMMENT = re.compile(r"\s+# .*")
_COMMAND = re.compile(r"(airflow|make) \w")


def documented_commands() -> dict[str, set[str]]:
    """Each command as it is written, in the documents' order, with the names of the files that show it."""
    commands: dict[str, set[str]] = {}
    for path in [*(ROOT / name for name in _NAMES), *sorted((ROOT / "docs").rglob("*.md"))]:
        for command in _read_commands(path):
            commands.setdefault(command, set()).add(str(path.relative_to(ROOT)))
    return commands


def _read_commands(path: Path) -> list[str]:
    text = path.read_text()
    lines = [_COMMENT.sub("", line).strip() for block in _FENCED.findall(text) for line in block.splitlines()]
    inline = [" ".join(code.split()) for code in _INLINE.findall(_FENCED.sub("", text))]
    return [command for command in [*lines, *inline] if _COMMAND.match(command)]


NOT_RUN = {
    "airflow celery worker --concurrency 4": "needs Redis, and never ends; tests/airflow/test_celery.py runs it",
    "airflow dags test": "without its arguments; with them it is in README.md",
    "make audit": "needs pypi.org's own API",
    "make bench": "takes half an hour",
    "make bench ONLY=path,meg": "takes minutes",
    "make bench ONLY=plain": "takes minutes",
    "make bench QUICK=1": "takes minutes",
    "make bench-sizing": "takes minutes",
    "make bench-workers": "takes minutes",
    "make chaos": "takes minutes",
    "make check": "takes a minute, and CI runs it by itself",
    "make compat": "takes minutes, and installs other versions of Airflow",
    "make compat ONLY=3.2.1": "takes minutes, and installs another version of Airflow",
    "make mwaa AIRFLOW=3.2.1 WHEELS=1": "downloads 50 MB; `make compat` builds the same bundle",
    "make compose-test": "needs a Docker engine",
    "make pins": "resolves every version from the package index",
    "make release": "commits and tags; tests/dev/test_release.py runs its parts",
    "make run": "takes minutes; tests/dev/test_embedded_airflow.py runs its parts",
    "make test": "is what runs this test",
    "make test-fast": "runs a part of what `make test` runs",
    "make up": "never ends",
}
"""The commands that cannot run here or take too long, with the reason."""
COMMANDS = [command for command in documented_commands() if command not in NOT_RUN]
SHELL_COMMANDS = [command for command in COMMANDS if command.startswith(("airflow db ", "airflow dags test "))]
MAKE_COMMANDS = [command for command in COMMANDS if command.startswith("make ")]
STACK_COMMANDS = [command for command in COMMANDS if command not in SHELL_COMMANDS and command not in MAKE_COMMANDS]


def run(command: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a command as a user types it."""
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}:\n{result.stdout[-4000:]}"
