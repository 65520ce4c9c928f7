"""Tests the files for Kubernetes: Airflow's executor reads the pod template, and the files agree."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
CHART_SCHEMA = "BI_CHART_SCHEMA"
"""The environment variable with the path of the values.schema.json of Airflow's Helm chart."""


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
    return content


def test_kubernetes_executor_takes_pod(values: dict[str, Any]) -> None:
    """The executor takes the pod template and adds a task to it."""
    template = PodGenerator.deserialize_model_file(str(FOLDER / "pod-template.yaml"))
    pod = PodGenerator.construct_pod(
        dag_id="bi_monthly",
        task_id="monthly_submissions.eu.stage",
        pod_id="bi-monthly-stage",
        try_number=1,
        kube_image=template.spec.containers[0].image,
        date=None,
        args=["a task"],
        pod_override_object=None,
        base_worker_pod=template,
        namespace="airflow",
        scheduler_job_id="1",
        run_id="run",
        map_index=3,
    )
    [task] = pod.spec.containers
    assert (task.name, task.args, pod.spec.restart_policy) == ("base", ["a task"], "Never")
    assert task.image == f"{values['images']['airflow']['repository']}:{values['images']['airflow']['tag']}"
    assert {source.secret_ref.name for source in task.env_from if source.secret_ref} == {"meg-bi-connections"}
    assert pod.spec.security_context.run_as_non_root
    env = {variable.name: variable.value for variable in task.env}
    assert env["CONNECTION_CHECK_MAX_COUNT"] == "0"
    assert env["AIRFLOW__CORE__EXECUTOR"] == "KubernetesExecutor"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].endswith(":8080/execution/")
    assert pod.metadata.labels["app.kubernetes.io/part-of"] == "meg-bi"
    assert pod.spec.termination_grace_period_seconds == 60


def test_kubernetes_misspelt_field_is_refused() -> None:
    """The client drops unknown fields, so every field of the file must come back."""
    template = yaml.safe_load((FOLDER / "pod-template.yaml").read_text())
    parsed = PodGenerator.serialize_pod(PodGenerator.deserialize_model_dict(template))
    assert parsed == template


def test_kubernetes_files_agree(values: dict[str, Any]) -> None:
    """Both files name the same settings and secrets."""
    template = yaml.safe_load((FOLDER / "pod-template.yaml").read_text())
    [task] = template["spec"]["containers"]
    assert yaml.safe_load(values["extraEnvFrom"]) == task["envFrom"]
    assert values["workers"]["kubernetes"]["resources"] == task["resources"]
    assert all(variable in task["env"] for variable in values["env"])
    assert "password" not in (FOLDER / "values.yaml").read_text().lower()


def test_images_match_tested_airflow() -> None:
    """The images are of the tested Airflow."""
    pins = (ROOT / "dev" / "requirements.txt").read_text()
    airflow = next(line.split("==")[1] for line in pins.splitlines() if line.startswith("apache-airflow=="))
    for file in (FOLDER / "Dockerfile", ROOT / "dev" / "Dockerfile"):
        assert f"FROM apache/airflow:{airflow}-" in file.read_text()
    assert f"meg-bi-airflow:{airflow}" in (ROOT / "docker-compose.yaml").read_text()
    assert yaml.safe_load((FOLDER / "values.yaml").read_text())["airflowVersion"] == airflow


def test_values_match_chart_schema(values: dict[str, Any]) -> None:
    """The chart's schema accepts the values and knows each of their keys."""
    path = os.environ.get(CHART_SCHEMA)
    if not path:
        pytest.skip(
            f"{CHART_SCHEMA} is not set; run: helm pull apache-airflow/airflow --untar, and set it to the full path of "
            "airflow/values.schema.json"
        )
    schema = json.loads(Path(path).read_text())
    jsonschema.Draft7Validator(schema).validate(values)
    assert list(unknown_keys(values, schema)) == []
    unknown = {**values, "workers": {"celery": {"memory": {}}}}
    assert list(unknown_keys(unknown, schema)) == ["workers.celery.memory"]


def unknown_keys(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """The keys that a schema does not describe; most of the chart's objects accept any key."""
    properties = schema.get("properties", {})
    for key, value in values.items():
        if properties and key not in properties:
            yield f"{path}{key}"
        elif isinstance(value, dict):
            yield from unknown_keys(value, properties.get(key, {}), f"{path}{key}.")
