"""
# BI, monthly

Loads the month just ended from every region's MEG into MongoDB, on the 1st at midnight (`BI_TIMEZONE`), in Airflow's
catchup for months missed, and whenever you trigger it. Sessions and top users wait until 01:00. Each run replaces its
own month only, and may be run or cleared again at any time with the same result; of the top users only the newest stay.

{jobs}

**Trigger** takes `period` (a month that has ended; empty for the last), `jobs`, `regions`, `force` and `dry_run`.

**When a task fails or is skipped**, the last lines of its log say why, what was expected and what to do. In short:

| the message says | what to do |
| --- | --- |
| MEG cannot be read | Retried automatically. If it persists, check that server. The other regions are published. |
| authentication to MEG or MongoDB failed | Correct the connection that is named, then trigger `bi_doctor`. |
| stage tasks have not staged | Clear these tasks with downstream; a task that is marked success stages nothing. |
| this load is not known; a setting has changed since | Clear the region's task group. |
| the slice would shrink so much | Look at MEG; if the fall is real, trigger the month again with `force`. |
| a newer snapshot, or a newer reading, is live (skipped) | Nothing; to read MEG again clear the region's task group. |
| another run began to publish this slice | Nothing, or clear `publish` to make this run the last. |
| all tasks are skipped | `BI_AGGREGATE` is off: set it, then clear the run. |
| the run has parameters that cannot be used | Trigger it again with parameters that the log allows. |
"""

from bi_ops.airflow.dag_factory import build_dag
from bi_ops.catalog.periods import Cadence

dag = build_dag(Cadence.MONTHLY, __doc__)  # found by Airflow, which looks for DAG objects here
