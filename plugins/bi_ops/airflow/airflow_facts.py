"""Reads what Airflow says of itself, for the doctor."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from airflow import __version__
from airflow.configuration import conf

from bi_ops.doctor.deployment_checks import AirflowFacts

_PROVIDERS = ("postgres", "mongo", "standard", "celery", "cncf-kubernetes", "amazon", "apprise")
"""The providers that this package or a deployment needs; one that is not installed is not shown."""


def read_airflow_facts() -> AirflowFacts:
    """Read the configuration and the installed versions; no argument of the secrets backend, which may be a secret."""
    return AirflowFacts(
        executor=conf.get_mandatory_value("core", "executor"),
        secrets_backend=_secrets_backend(),
        versions={"Airflow": __version__, "Python": platform.python_version(), **_provider_versions()},
    )


def _secrets_backend() -> str:
    """The class of the backend that a task uses: that of the workers, if they have their own."""
    for section, key in (("workers", "secrets_backend"), ("secrets", "backend")):
        if name := conf.get(section, key, fallback=""):
            return name.rpartition(".")[2]
    return ""


def _provider_versions() -> dict[str, str]:
    versions = {}
    for provider in _PROVIDERS:
        try:
            versions[provider] = version(f"apache-airflow-providers-{provider}")
        except PackageNotFoundError:
            continue
    return versions
