"""
# BI, weekly

Describes, on Saturday at midnight (`BI_TIMEZONE`), every region's institutions, forms and security risks as they are.
Each run replaces what its region had, and may be run or cleared again at any time; an older run never replaces what a
newer one published, and is skipped. Weeks missed are not caught up: only the newest description matters.

{jobs}

**Trigger** takes `period` (a month or a quarter, to describe its end; empty for now), `jobs`, `regions`, `force` and
`dry_run`.

**When a task fails or is skipped**, the last lines of its log say why, what was expected and what to do. In short:

| the message says | what to do |
| --- | --- |
| MEG cannot be read | Retried automatically. If it persists, check that server. The other regions are published. |
| authentication to MEG or MongoDB failed | Correct the connection that is named, then trigger `bi_doctor`. |
| stage tasks have not staged | Clear these tasks with downstream; a task that is marked success stages nothing. |
| this load is not known; a setting has changed since | Clear the region's task group. |
| the slice would shrink so much | Look at MEG; if the fall is real, trigger it again with `force`. |
| a newer snapshot, or a newer reading, is live (skipped) | Nothing; to read MEG again clear the region's task group. |
| all tasks are skipped | `BI_AGGREGATE` is off: set it, then clear the run. |
| the run has parameters that cannot be used | Trigger it again with parameters that the log allows. |
"""

from bi_ops.airflow.dag_factory import build_dag
from bi_ops.catalog.periods import Cadence

dag = build_dag(Cadence.WEEKLY, __doc__)  # found by Airflow, which looks for DAG objects here
