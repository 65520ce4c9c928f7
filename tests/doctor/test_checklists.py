"""Tests that the checklist of each guide names the checks that the doctor prints."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.doctor.doctor_scenarios import DoctorTarget

GUIDES = ("astronomer", "celery-and-kubernetes", "compose", "mwaa")
FOR_EVERY_GUIDE = {
    "deployment",
    "versions",
    "executor",
    "secrets backend",
    "connection",
    "network address",
    "privileges",
    "time zone",
    "indexes: sessions by form",
    "indexes: observations by session",
    "indexes",
}
_ITEM = re.compile(r"^- \[ \] ((?:`[^`]+`(?:, )?)+): ", re.MULTILINE)


@pytest.mark.usefixtures("store")
def test_checklists_name_printed_checks(target: DoctorTarget) -> None:
    """Each guide ends in a checklist of the checks that a deployment depends on, by their printed names."""
    printed = {finding.check for finding in target.run_checks()}
    for guide in GUIDES:
        names = checklist(guide)
        assert names <= printed, guide
        assert names >= FOR_EVERY_GUIDE, guide


def checklist(guide: str) -> set[str]:
    """The checks that the last section of a guide names."""
    _, _, section = (ROOT / "docs" / f"{guide}.md").read_text().rpartition("\n## ")
    assert section.startswith("Checklist\n"), guide
    return {name for item in _ITEM.findall(section) for name in re.findall("`([^`]+)`", item)}
