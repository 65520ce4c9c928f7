"""
# BI, monthly

Loads the month just ended from every region's MEG into MongoDB, on the 1st at midnight (`BI_TIMEZONE`), in Airflow's
catchup for months missed, and whenever you trigger it. Sessions and top users wait until 01:00. Each run replaces its
own month only, and may be run or cleared again at any time with the same result; of the top users only the newest stay.

{jobs}

**Trigger** takes `period` (a month that has ended; empty for the last), `jobs`, `regions`, `force` and `dry_run`.

**When a task fails**, the last line of its log says what was expected, what was found and what to do. In short:

| the message says | what to do |
| --- | --- |
| MEG cannot be read | Nothing if a retry heals it; else see to that region's server. The other regions are published. |
| MEG or MongoDB does not let this account in | Mend the connection that is named; `bi_doctor` says when all is well. |
| what is staged is not what the stage tasks reported | Clear the region's task group. |
| the slice would shrink so much | Look at MEG; if the fall is real, trigger the month again with `force`. |
| a newer snapshot is already live (skipped) | Nothing: the top users of a later run stay. |
| another run began to publish this slice | Nothing, or clear `publish` to make this run the last. |
| all tasks are skipped | `BI_AGGREGATE` is off: set it, then clear the run. |
"""

from bi_ops.periods import Cadence
from bi_ops.pipeline import build_dag

dag = build_dag(Cadence.MONTHLY, __doc__)  # found by Airflow, which looks for DAG objects here
