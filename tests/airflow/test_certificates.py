"""Tests which certificate authorities libpq trusts when a connection names none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.postgres.hooks.postgres import PostgresHook

from bi_ops.airflow.connections import _postgres_parameters


def parameters(monkeypatch: pytest.MonkeyPatch, **extra: str) -> dict[str, Any]:
    connection = {"conn_type": "postgres", "host": "meg.example.com", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MEG_EU", json.dumps(connection))
    return _postgres_parameters("meg_eu", PostgresHook("meg_eu"))


@pytest.mark.parametrize("extra", [{}, {"sslrootcert": "system"}])
def test_libpq_uses_system_certificates(monkeypatch: pytest.MonkeyPatch, extra: dict[str, str]) -> None:
    """The OpenSSL of psycopg's wheel trusts no authority by default."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    root_certificate = parameters(monkeypatch, sslmode="verify-full", **extra)["sslrootcert"]
    assert "BEGIN CERTIFICATE" in Path(root_certificate).read_text()


def test_sslrootcert_in_extra_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that the connection names is used."""
    assert parameters(monkeypatch, sslmode="verify-ca", sslrootcert="/ours.pem")["sslrootcert"] == "/ours.pem"
    monkeypatch.setenv("PGSSLROOTCERT", "/theirs.pem")
    assert "sslrootcert" not in parameters(monkeypatch, sslmode="verify-full")
