"""A running Airflow over two regions of which one was down while it caught up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any

import pendulum

from bi_ops.mongo.store import Store
from dev import airflow, run_dags
from dev.embedded_stack import LIVE_DATABASE, DatabaseServers
from dev.webhook_server import Listener, listening
from tests.airflow_env import AirflowApi, new_airflow
from tests.conftest import ROOT, STACK
from tests.load_helpers import live_raw_documents, monthly_slice
from tests.meg_factory import MegFactory

DAG = "bi_monthly"
FORMS = {"eu": 25, "uk": 11}
MONTHS = 2
PLANTED_SECRETS = {name: token_urlsafe(24) for name in ("pseudonyms", "notify", "digest")}
"""Secrets that must not appear anywhere, in addition to those of the stack."""
FIRST_MONTH = pendulum.now("UTC").start_of("month").subtract(months=MONTHS)
THIS_MONTH = FIRST_MONTH.add(months=MONTHS).format("YYYY-MM")
MONTH_NAMES = [FIRST_MONTH.add(months=number).format("YYYY-MM") for number in range(MONTHS)]


@dataclass(frozen=True)
class Installation(AirflowApi):
    """A running Airflow over both regions, one of which was down when it caught up.

    Attributes:
        store: The MongoDB databases.
        catchup_states: The state of each run after catchup with the region uk down, by run id.
        published: The ledger's ids after that.
        listener: The server that receives notifications.
    """

    store: Store
    catchup_states: dict[str, str]
    published: set[str]
    listener: Listener

    def slices(self) -> dict[str, dict[str, bytes]]:
        """The bytes of every live slice, without the load metadata."""
        return {
            f"{region} {name}": live_raw_documents(self.store, monthly_slice(name, region=region))
            for region in FORMS
            for name in MONTH_NAMES
        }


@contextmanager
def run_installation(servers: DatabaseServers) -> Iterator[Installation]:
    """Fill both MEGs, let Airflow catch up while the region uk is down, and keep it running for the block."""
    with servers.mongo_admin.client() as admin:
        for name in (LIVE_DATABASE, f"{LIVE_DATABASE}_staging"):
            admin.drop_database(name)
    for region, forms in FORMS.items():
        with servers.postgres.connect(f"meg_{region}") as connection:
            meg_factory = MegFactory(connection)
            meg_factory.bulk_forms(forms)
            at = FIRST_MONTH.add(days=40)
            connection.execute("UPDATE megforms_auditsession SET submitted_at = %s, started_at = %s", (at, at))
            auditor = meg_factory.auditor(1_000_000)
            connection.execute("UPDATE megforms_auditsession SET auditor_id = %s", (auditor,))
    settings = {
        "BI_AGGREGATE": "1",
        "MEG_REGIONS": ",".join(FORMS),
        "BI_MAX_MAPPED_TASKS": "2",
        "BI_START_DATE": FIRST_MONTH.to_date_string(),
        "BI_PSEUDONYMISE": "uk",
        "AIRFLOW_CONN_BI_PSEUDONYMS": json.dumps({"conn_type": "generic", "password": PLANTED_SECRETS["pseudonyms"]}),
        "PYTHONPATH": str(ROOT / "tests" / "policy"),
        **servers.connections({region: f"meg_{region}" for region in FORMS}),
    }
    environment = new_airflow(servers, STACK, settings | bundles_with_example())
    with (
        listening() as listener,
        airflow.run_services(
            STACK,
            {
                **environment,
                "AIRFLOW_CONN_BI_NOTIFY": listener.connection(PLANTED_SECRETS["notify"]),
                "AIRFLOW_CONN_BI_DIGEST": listener.connection(PLANTED_SECRETS["digest"]),
            },
            servers.secret,
            triggerer=False,
        ) as services,
        services.api() as api,
        servers.mongo.client() as client,
    ):
        store = Store(client, LIVE_DATABASE)
        with region_down(servers, "uk"):
            catchup_states = run_dags.run_and_wait(
                api, run_dags.RunRequest(DAG, scheduled_after=FIRST_MONTH, count=MONTHS), seconds=300
            )[DAG]
        yield Installation(api, DAG, store, catchup_states, set(store.ledger.distinct("_id")), listener)


def bundles_with_example() -> dict[str, str]:
    """The environment variable by which Airflow reads the DAGs, and the example of a downstream DAG in the guide."""
    folder = STACK / "downstream_dags"
    folder.mkdir(parents=True, exist_ok=True)
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "concepts.md").read_text(), re.DOTALL)
    (folder / "region_month_report.py").write_text(example)
    bundles = [
        {
            "name": path.name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(path)},
        }
        for path in (ROOT / "dags", folder)
    ]
    return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles)}


@contextmanager
def region_down(servers: DatabaseServers, region: str) -> Iterator[None]:
    """A region's role cannot log in while the block runs."""

    def allow(word: str) -> None:
        with servers.postgres.connect() as admin:
            admin.execute(f"ALTER DATABASE meg_{region} ALLOW_CONNECTIONS {word}")

    allow("false")
    try:
        yield
    finally:
        allow("true")


def get_tasks(installation: Installation, run_id: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = installation.get(f"/dags/{DAG}/dagRuns/{run_id}/taskInstances", limit=100)[
        "task_instances"
    ]
    return tasks


def get_log(installation: Installation, run_id: str, task_id: str, attempt: int = 1) -> str:
    path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
    return str(installation.get(path, full_content=True))


def partition_keys(installation: Installation, asset: str) -> set[str | None]:
    """The keys of an asset's events."""
    [asset_id] = [row["id"] for row in installation.get("/assets", limit=100)["assets"] if row["name"] == asset]
    events = installation.get("/assets/events", asset_id=asset_id, limit=100)["asset_events"]
    return {event["partition_key"] for event in events}
