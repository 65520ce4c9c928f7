"""The console, and the table of published slices."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from dev.mongo import Mongo

console = Console()


def print_published(server: Mongo, database: str, run_ids: list[str]) -> int:
    """Print the slices that these DAG runs published, as read back from MongoDB, and return their number."""
    table = Table("collection", "region", "period", title="Published to MongoDB")
    for name in ("documents", "seconds"):
        table.add_column(name, justify="right")
    with server.client() as client:
        db = client[database]
        order = [("job", 1), ("period", 1), ("region", 1)]
        loads = list(db["bi_loads"].find({"run_id": {"$in": run_ids}}, sort=order))
        for load in loads:
            slice_filter = {"region": load["region"], **({"period": load["period"]} if load["period"] else {})}
            documents = db[load["job"]].count_documents(slice_filter)
            seconds = (load["published_at"] - load["started_at"]).total_seconds()
            table.add_row(load["job"], load["region"], load["period"] or "-", f"{documents:,}", f"{seconds:.1f}")
    console.print(table)
    return len(loads)
