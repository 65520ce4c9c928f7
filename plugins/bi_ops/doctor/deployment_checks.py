"""Shows where and on what Airflow runs: the deployment, versions, executor and secrets backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bi_ops.doctor.results import Finding, Status
from bi_ops.reports.mwaa import MWAA_VALUE, MWAA_VARIABLE

AIRFLOW_SUBJECT = "Airflow"
DEPLOYMENTS = (
    (MWAA_VARIABLE, MWAA_VALUE, "Amazon MWAA"),
    ("ASTRONOMER_ENVIRONMENT", "", "Astronomer"),
    ("BI_COMPOSE", "", "Docker Compose"),
    ("KUBERNETES_SERVICE_HOST", "", "Kubernetes"),
)
"""The environment variable by which each deployment is recognised, with the start of its value; the first counts, as
Astronomer is Kubernetes too.

https://github.com/astronomer/astronomer-cosmos/blob/main/cosmos/settings.py
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""


@dataclass(frozen=True)
class AirflowFacts:
    """What Airflow says of itself in the process that runs the doctor.

    Attributes:
        executor: The configured executors, separated by commas.
        secrets_backend: The class of the configured secrets backend; empty without one.
        versions: The versions by name, the most important first.
    """

    executor: str
    secrets_backend: str
    versions: Mapping[str, str]


def check_deployment(facts: AirflowFacts, env: Mapping[str, str]) -> Iterator[Finding]:
    """Show the deployment; nothing here is wrong by itself.

    Args:
        facts: What Airflow says of itself.
        env: The environment of this process.
    """
    deployment = next(
        (
            f"{name} (by {variable})"
            for variable, start, name in DEPLOYMENTS
            if env.get(variable) and env[variable].startswith(start)
        ),
        "none of Amazon MWAA, Astronomer, Docker Compose and Kubernetes",
    )
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    backend = f"{facts.secrets_backend}, then " if facts.secrets_backend else ""
    messages = {
        "deployment": deployment,
        "versions": versions,
        "executor": facts.executor,
        "secrets backend": f"{backend}the environment, then Airflow's database",
    }
    for check, message in messages.items():
        yield Finding(AIRFLOW_SUBJECT, check, Status.OK, message)
