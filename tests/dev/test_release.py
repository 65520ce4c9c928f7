"""Tests that `make release` tags a clean, checked tree whose changelog names the version, and nothing else."""

from __future__ import annotations

import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from dev.processes import StackError
from dev.release import release

pytestmark = pytest.mark.fast

CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Added\n\n- Reports.\n"


def dated_changelog() -> str:
    return CHANGELOG.replace("Unreleased", f"0.1.0 - {datetime.now(timezone.utc):%Y-%m-%d}").strip()


def git(repository: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=repository, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose `make check` passes, with an unreleased change."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "config", "user.name", "Test")
    git(tmp_path, "config", "user.email", "test@example.com")
    (tmp_path / ".gitignore").write_text("dist/\n")
    (tmp_path / "Makefile").write_text("check:\n\t@true\n")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    commit(tmp_path)
    return tmp_path


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Change")


def test_release_tags_dated_changelog(repository: Path) -> None:
    """The tag is annotated, its changelog names version and date, and the bundle is built."""
    before = dated_changelog()
    assert release(repository, "0.1.0") == "v0.1.0"
    assert git(repository, "cat-file", "-t", "v0.1.0") == "tag"
    assert git(repository, "show", "v0.1.0:CHANGELOG.md") in {before, dated_changelog()}  # midnight may pass
    assert git(repository, "status", "--porcelain") == ""
    bundle = repository / "dist" / "meg-bi-0.1.0-mwaa"
    assert {path.name for path in bundle.iterdir()} >= {"dags", "plugins.zip", "requirements.txt", "startup.sh"}


def test_release_keeps_dated_section(repository: Path) -> None:
    """A section of the version's own stays, and needs no commit."""
    own = CHANGELOG.replace("Unreleased", "0.1.0 - 2026-01-02")
    (repository / "CHANGELOG.md").write_text(own)
    commit(repository)
    head = git(repository, "rev-parse", "HEAD")
    release(repository, "0.1.0")
    assert git(repository, "rev-parse", "v0.1.0^{commit}") == head
    assert (repository / "CHANGELOG.md").read_text() == own


@pytest.mark.parametrize(
    ("file", "text", "committed", "message"),
    [
        ("new.txt", "", False, "not clean"),
        ("CHANGELOG.md", "# Changelog\n\n## 0.0.9\n\n- Reports.\n", True, 'no section "0.1.0"'),
        ("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n## 0.0.9\n\n- Reports.\n", True, '"Unreleased" .* is empty'),
        ("Makefile", "check:\n\t@false\n", True, "make check failed"),
    ],
)
def test_release_is_refused(repository: Path, file: str, text: str, committed: bool, message: str) -> None:
    """An unclean tree, a changelog without the version and a failed check leave no tag and no commit."""
    (repository / file).write_text(text)
    if committed:
        commit(repository)
    head = git(repository, "rev-parse", "HEAD")
    with pytest.raises(StackError, match=message):
        release(repository, "0.1.0")
    assert git(repository, "tag") == ""
    assert git(repository, "rev-parse", "HEAD") == head
    assert (repository / file).read_text() == text


def test_release_twice_is_refused(repository: Path) -> None:
    """A version is tagged once."""
    release(repository, "0.1.0")
    with pytest.raises(StackError, match=r"v0\.1\.0 exists already"):
        release(repository, "0.1.0")
