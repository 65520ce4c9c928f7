"""When each region began to use MEG: read from MEG, and stored for those who must know it while MEG is down."""

from __future__ import annotations

from datetime import datetime

from bi_ops.catalog.sql_templates import render_sql
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store


def read_region_start(meg: MegReader) -> datetime | None:
    """The creation of the region's first institution; None if it has none.

    Raises:
        As `MegReader.fetch_all` does.
    """
    [(start,)] = meg.fetch_all(render_sql("region_start.sql"))
    return start if isinstance(start, datetime) else None


def store_region_start(store: Store, region: str, start: datetime | None) -> None:
    """Store a region's start as it was last read."""
    store.region_starts.replace_one({"_id": region}, {"_id": region, "starts_at": start}, upsert=True)


def stored_region_starts(store: Store) -> dict[str, datetime | None]:
    """The start of each region for which it has been read, by region."""
    return {row["_id"]: row["starts_at"] for row in store.region_starts.find()}
