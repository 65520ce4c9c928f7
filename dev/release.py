"""`make release`: tag the version of `bi_ops`, and build what is released of it into dist/.

The changelog's section "Unreleased" becomes the version's, as a commit of its own. Nothing is pushed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from bi_ops import __version__
from dev import mwaa
from dev.console import console
from dev.processes import StackError

ROOT = Path(__file__).parents[1]
_CHANGELOG = "CHANGELOG.md"


def release(root: Path, version: str) -> str:
    """Check, build and tag a version, and return the name of the tag.

    Args:
        root: The repository.
        version: Such as `0.1.0`.

    Raises:
        StackError: The working tree is not clean, the version is tagged already, the changelog says nothing about it,
            or `make check` fails. Nothing has been committed or tagged then.
    """
    tag = f"v{version}"
    if changes := _git(root, "status", "--porcelain"):
        raise StackError(f"The working tree is not clean. Commit or remove:\n{changes}")
    if _git(root, "tag", "--list", tag):
        raise StackError(f"The tag {tag} exists already. Raise __version__ in plugins/bi_ops/__init__.py.")
    changelog = root / _CHANGELOG
    text = changelog.read_text()
    dated = date_changelog(text, version, f"{datetime.now(timezone.utc):%Y-%m-%d}")
    if subprocess.run(["make", "check"], cwd=root, check=False).returncode:  # noqa: S607 - from PATH
        raise StackError("make check failed, so nothing was released.")
    bundle = root / "dist" / f"meg-bi-{version}-mwaa"
    shutil.rmtree(bundle, ignore_errors=True)
    mwaa.build_bundle(mwaa.DEFAULT_AIRFLOW, bundle)
    if dated != text:
        changelog.write_text(dated)
        _git(root, "commit", "--quiet", "--message", f"Release {version}", "--", _CHANGELOG)
    _git(root, "tag", "--annotate", tag, "--message", f"Release {version}")
    return tag


def date_changelog(text: str, version: str, date: str) -> str:
    """Return the changelog with a section for the version: its own, or "Unreleased" renamed and dated.

    Raises:
        StackError: It has neither, or the section is empty.
    """
    heading = re.search(rf"^## {re.escape(version)}( .*)?\n", text, re.MULTILINE) or re.search(
        r"^## Unreleased\n", text, re.MULTILINE
    )
    if heading is None:
        raise StackError(f'{_CHANGELOG} has no section "{version}" and none "Unreleased". Add one with what changed.')
    section = text[heading.end() :].partition("\n## ")[0]
    if "\n- " not in f"\n{section}":
        raise StackError(f'The section "{heading.group()[3:-1]}" of {_CHANGELOG} is empty. Add what changed.')
    if version in heading.group():
        return text
    return f"{text[: heading.start()]}## {version} - {date}\n{text[heading.end() :]}"


def _git(root: Path, *words: str) -> str:
    result = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)  # noqa: S607 - from PATH
    if result.returncode:
        raise StackError(f"git {words[0]} failed: {result.stderr.strip()}")
    return result.stdout.strip()


def main() -> int:
    """Release this repository's version, and return the exit status."""
    try:
        tag = release(ROOT, __version__)
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    console.print(f"Tagged {tag}; its bundle for Amazon MWAA is in dist/. To publish the tag: git push --follow-tags")
    return 0


if __name__ == "__main__":
    sys.exit(main())
