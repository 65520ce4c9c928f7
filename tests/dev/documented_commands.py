"""The `airflow` and `make` commands that the documentation shows."""

from __future__ import annotations

import re
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
