"""The comparison with a plain DAG: its DAGs, and its measure of processor time."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import DAG

from bench.stack_usage import cpu_seconds

pytestmark = pytest.mark.fast

DAGS = Path(__file__).parents[2] / "bench" / "dags"
BURN = "import time\nwhile time.process_time() < {seconds}: pass"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN.format(seconds=0.5)!r}], check=True)
print("ended", flush=True)
sys.stdin.read()
"""


def load_dags(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, DAG]:
    """The DAGs of a file of `bench/dags`, executed as Airflow does."""
    monkeypatch.setenv("BI_MAX_MAPPED_TASKS", "32")  # restored afterwards
    spec = importlib.util.spec_from_file_location(name, DAGS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {value.dag_id: value for value in vars(module).values() if isinstance(value, DAG)}


def test_plain_dags_map_and_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    dags = load_dags("bench_plain", monkeypatch)
    assert set(dags) == {"bench_plain", "bench_dlt"}
    for dag in dags.values():
        assert set(dag.task_dict) == {"list_chunks", "load_chunk"}
        assert dag.task_dict["load_chunk"].is_mapped
        assert all(task.retries == 2 for task in dag.tasks)


def test_chunk_tasks_dag_differs_in_id_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = load_dags("bench_chunk_tasks", monkeypatch)["bench_chunk_tasks"]
    default = load_dags("bi_monthly", monkeypatch)["bi_monthly"]
    assert set(dag.task_dict) == set(default.task_dict)
    assert {task.dag_id for task in dag.tasks} == {"bench_chunk_tasks"}


def test_cpu_counts_ended_descendants() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ended\n"
        assert 0.45 < cpu_seconds(process.pid) < 1.5  # the kernel counts in hundredths, and rounds down
        process.communicate()
    assert cpu_seconds(process.pid) == 0
