"""Fixtures of the doctor's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.embedded_stack import DatabaseServers
from tests.doctor.doctor_scenarios import DoctorTarget


@pytest.fixture
def target(servers: DatabaseServers, monkeypatch: pytest.MonkeyPatch) -> Iterator[DoctorTarget]:
    for name, value in servers.connections({"eu": "meg_eu", "uk": "meg_uk"}).items():
        monkeypatch.setenv(name, value)
    with servers.postgres.connect("meg_eu") as meg:
        yield DoctorTarget(servers, meg)
