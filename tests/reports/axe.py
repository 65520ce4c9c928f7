"""Checks a page's accessibility with axe-core, which is installed from the npm registry once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.conftest import ROOT

_PACKAGE_JSON = Path(__file__).with_name("package.json")
_FOLDER = ROOT / ".local" / "axe"
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = """
async (rules) => {
  const { violations } = await axe.run(document, { runOnly: rules });
  return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
    .flatMap(({ id, nodes }) => nodes.slice(0, 3).map((node) => `${id}: ${node.html} ${node.failureSummary}`));
}
"""


def load_axe(page: Page) -> None:
    """Load axe-core into a page, past its content security policy; skips the test where it cannot be had."""
    page.evaluate(_script().read_text())


def list_violations(page: Page) -> list[str]:
    """The serious and critical violations of WCAG 2.2 AA on the page as it is shown."""
    violations: list[str] = page.evaluate(_RUN, _RULES)
    return violations


def _script() -> Path:
    script, installed = _FOLDER / "node_modules" / "axe-core" / "axe.min.js", _FOLDER / "package.json"
    if not script.exists() or installed.read_text() != _PACKAGE_JSON.read_text():
        if not shutil.which("npm"):
            pytest.skip("there is no npm here, and only root may install it: apt-get install npm")
        _FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copy(_PACKAGE_JSON, installed)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        result = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"the npm registry does not answer: {result.stderr[-300:]}")
    return script
