"""Tests the files for Kubernetes: Airflow's executor reads the pod template, and the files agree."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"


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
    assert env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
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
    assert yaml.safe_load(values["extraEnvFrom"]) == template["spec"]["containers"][0]["envFrom"]
    assert values["workers"]["resources"] == template["spec"]["containers"][0]["resources"]
    assert "password" not in (FOLDER / "values.yaml").read_text().lower()


def test_images_match_tested_airflow() -> None:
    """The images are of the tested Airflow."""
    pins = (ROOT / "dev" / "requirements.txt").read_text()
    airflow = next(line.split("==")[1] for line in pins.splitlines() if line.startswith("apache-airflow=="))
    for file in (FOLDER / "Dockerfile", ROOT / "dev" / "Dockerfile"):
        assert f"FROM apache/airflow:{airflow}-" in file.read_text()
    assert f"meg-bi-airflow:{airflow}" in (ROOT / "docker-compose.yaml").read_text()
    assert yaml.safe_load((FOLDER / "values.yaml").read_text())["airflowVersion"] == airflow
