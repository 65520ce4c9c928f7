"""
# BI, monthly

Loads the month that just ended from every region's MEG into MongoDB: on the 1st at midnight (`BI_TIMEZONE`), for missed
months through Airflow's catchup, and for any month by hand. Sessions and top users wait until 01:00. A run replaces its
own month only, and rerunning or clearing it is always safe; `top_users` keeps the newest snapshot only.

{jobs}

**Trigger** it with `period` (a month that has ended; empty for the last one), `jobs`, `regions`, `force` and `dry_run`.

**When a task fails or is skipped**, the last lines of its log say what happened, the expected and the actual state, and
what to do. A failure in one region does not affect the others. The most common messages, with `…` for a name:

{failures}

`docs/runbook.md` lists every message.
"""

from bi_ops.airflow.dag_factory import build_dag
from bi_ops.catalog.periods import Cadence

dag = build_dag(Cadence.MONTHLY, __doc__)  # found by Airflow, which looks for DAG objects here
