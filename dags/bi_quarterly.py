"""
# BI, quarterly

Classifies every form's use in each of the last eight quarters, for every region: on the first day of each quarter at
midnight (`BI_TIMEZONE`), for missed quarters through Airflow's catchup, and for any quarter by hand. A run replaces all
documents of its region. Rerunning or clearing it is always safe: an older run is skipped if a newer one has published.

{jobs}

**Trigger** it with `period` (a quarter that has ended; empty for the last one), `jobs`, `regions`, `force` and
`dry_run`.

**When a task fails or is skipped**, the last lines of its log say what happened, the expected and the actual state, and
what to do. A failure in one region does not affect the others. The most common messages, with `…` for a name:

{failures}

`docs/runbook.md` lists every message.
"""

from bi_ops.airflow.dag_factory import build_dag
from bi_ops.catalog.periods import Cadence

dag = build_dag(Cadence.QUARTERLY, __doc__)  # found by Airflow, which looks for DAG objects here
