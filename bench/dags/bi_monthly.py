"""The package's own monthly DAG, in a folder of Airflow's where the empty one is too."""

from bi_ops.periods import Cadence
from bi_ops.pipeline import build_dag

dag = build_dag(Cadence.MONTHLY, __doc__)
