"""The package's quarterly DAG, in one DAGs folder with the empty one."""

from bi_ops.airflow.dag_factory import build_dag
from bi_ops.catalog.periods import Cadence

dag = build_dag(Cadence.QUARTERLY, __doc__)
