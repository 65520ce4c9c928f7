"""Tests that staged data expires, and that a load needs its two databases only."""

from __future__ import annotations

import pytest
from pymongo.errors import OperationFailure

from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from tests.load_helpers import SUBMISSIONS, load_slice, monthly_slice
from tests.meg_factory import MegFactory, utc


def test_staged_data_expires(store: Store, servers: DatabaseServers) -> None:
    """A TTL index removes staged data after 30 days."""
    store.ensure_staging_collections(SUBMISSIONS.name)
    with servers.mongo_admin.client() as admin:
        indexes = admin[f"{LIVE_DATABASE}_staging"][SUBMISSIONS.name].index_information()
    assert indexes["staged_at_ttl"]["key"] == [("staged_at", 1)]
    assert indexes["staged_at_ttl"]["expireAfterSeconds"] == 30 * 24 * 3600


def test_load_needs_two_databases_only(store: Store, meg: MegReader, meg_factory: MegFactory) -> None:
    """A load needs no privilege beyond its two databases."""
    meg_factory.session(meg_factory.form(meg_factory.institution()), utc(2026, 10, 5))
    load_slice(store, meg, monthly_slice())
    with pytest.raises(OperationFailure, match="not authorized"):
        store.client["elsewhere"]["anything"].insert_one({})
