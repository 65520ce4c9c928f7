"""Loads the demo's earlier months behind the running UI, with `bi_backfill`, and prints each as it is published."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import pendulum

from dev import run_dags
from dev.api_client import ApiClient
from dev.console import console
from dev.embedded_stack import LIVE_DATABASE
from dev.mongo import Mongo

_DAG_ID = "bi_backfill"
_POLL_SECONDS = 5
_MONTHLY_JOBS = ["monthly_submissions", "monthly_sessions"]


def load_history(api: ApiClient, server: Mongo, months: Sequence[str], regions: Iterable[str]) -> bool:
    """Trigger `bi_backfill` for the months that are not published, and print its progress until it ends.

    It loads one month at a time, the newest first, so that the UI stays usable. A failure is printed, not raised: the
    UI, which says more about it, keeps running.

    Args:
        api: Airflow's REST API, logged in.
        server: MongoDB.
        months: The months, such as `2026-10`, the newest first.
        regions: The regions.

    Returns:
        Whether all months are published.

    Raises:
        StackError: Airflow refuses the run, or its API does not answer.
    """
    published = published_months(server, months, regions)
    if published >= set(months):
        return True
    began = time.monotonic()
    run_id = f"demo__{pendulum.now('UTC').format('YYYY-MM-DDTHH-mm-ss')}"
    run_dags.wait_for_dag(api, _DAG_ID)
    run_dags.trigger(
        api, _DAG_ID, run_id, {"from": months[-1], "to": months[0], "jobs": _MONTHLY_JOBS, "regions": [*regions]}
    )
    run_dags.api_request(api, "PATCH", f"/dags/{_DAG_ID}", json={"is_paused": False})
    _print(f"Loading {len(months) - len(published)} earlier months behind the UI, the newest first.")
    state = "queued"
    while state not in run_dags.END_STATES:
        time.sleep(_POLL_SECONDS)
        state = run_dags.api_request(api, "GET", f"/dags/{_DAG_ID}/dagRuns/{run_id}")["state"]
        for month in sorted(published_months(server, months, regions) - published, reverse=True):
            published.add(month)
            _print(f"{month} loaded: {len(published)} of {len(months)} months after {time.monotonic() - began:.0f} s")
    if complete := state == "success":
        _print("All months are loaded.")
    else:
        _print(f"{_DAG_ID} failed: {len(published)} of {len(months)} months are loaded. Hint: see its task report.")
    return complete


def published_months(server: Mongo, months: Iterable[str], regions: Iterable[str]) -> set[str]:
    """Those of the months that the ledger has for each monthly job and each of the regions."""
    slices = [f"{job}:{region}" for job in _MONTHLY_JOBS for region in regions]
    with server.client() as client:
        ledger = client[LIVE_DATABASE]["bi_loads"]
        ids = {load["_id"] for load in ledger.find({"period": {"$in": [*months]}}, {"_id": True})}
    return {month for month in months if ids >= {f"{slice_}:{month}" for slice_ in slices}}


def _print(line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
