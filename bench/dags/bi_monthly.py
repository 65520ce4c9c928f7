"""The package's own monthly DAG, in a folder of Airflow's where the empty one is too."""

from bi_ops.airflow.dag_factory import build_dag
from bi_ops.catalog.periods import Cadence

dag = build_dag(Cadence.MONTHLY, __doc__)
