"""The package's monthly DAG with a task for each chunk, beside the one with the default settings in one Airflow."""

import os

from bi_ops.airflow.dag_factory import build_dag
from bi_ops.catalog.periods import Cadence

os.environ["BI_MAX_MAPPED_TASKS"] = "1024"  # Airflow parses and executes each file in a process of its own
dag = build_dag(Cadence.MONTHLY, __doc__)
dag.dag_id = "bench_chunk_tasks"
