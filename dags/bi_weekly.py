"""
# BI, weekly

Takes a snapshot of every region's institutions, forms and security risks: on Saturday at midnight (`BI_TIMEZONE`), and
at any time by hand. A run replaces all documents of its region. Rerunning or clearing it is always safe: an older run
is skipped if a newer one has published. Missed weeks are not caught up, since only the newest snapshot matters.

{jobs}

**Trigger** it with `period` (a month or a quarter, for a snapshot of its end; empty for now), `jobs`, `regions`,
`force` and `dry_run`.

**When a task fails or is skipped**, the last lines of its log say what happened, the expected and the actual state, and
what to do. A failure in one region does not affect the others. The most common messages, with `…` for a name:

{failures}

`docs/runbook.md` lists every message.
"""

from bi_ops.airflow.dag_factory import build_dag
from bi_ops.catalog.periods import Cadence

dag = build_dag(Cadence.WEEKLY, __doc__)  # found by Airflow, which looks for DAG objects here
