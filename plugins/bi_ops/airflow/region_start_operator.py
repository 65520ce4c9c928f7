"""The base of the operators of `bi_backfill` and `bi_watch`, which read when a region began to use MEG."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from bi_ops.airflow.base_operator import BiOperator

if TYPE_CHECKING:
    from bi_ops.mongo.store import Store


class RegionStartOperator(BiOperator):
    """A task that looks for missing slices; none is missing from before its region's start."""

    def _read_region_start(self, store: Store, region: str) -> datetime | None:
        """Read from its MEG when a region began to use it, and store that."""
        from bi_ops.airflow.connections import open_meg
        from bi_ops.load.region_starts import read_region_start, store_region_start

        with open_meg(region, application_name=f"{self.dag_id} {region}") as self._meg:
            start = read_region_start(self._meg)
        store_region_start(store, region, start)
        return start
