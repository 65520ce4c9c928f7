"""
# BI backfill

Loads what should be published and is not: months that were missed for any reason, and a new region's past. The ledger
(`bi_loads`) decides what is missing: each month since `BI_START_DATE` or since the region began to use MEG, the last
quarter, and the snapshots that were due last. Each period is loaded by runs of `bi_monthly`, `bi_quarterly` or
`bi_weekly`, for the missing jobs and regions only, one after the other, the newest first. Triggering it again is
always safe: unless `only_missing` is off, it leaves out what has been published by then.

**Trigger** it with `jobs`, `regions`, `from` and `to` (months), `only_missing` and `dry_run`:

| only_missing | dry_run | what it does |
| --- | --- | --- |
| on | off | loads what is missing |
| on | on | lists what is missing |
| off | off | loads every period again |
| off | on | compares published months with what MEG says today, and publishes nothing |

**By itself**: with `BI_SELF_HEAL=1` it runs every day at 06:00 (`BI_TIMEZONE`), loads up to `BI_MAX_HEAL_PERIODS`
periods of what is late, and leaves out what failed for a reason that no retry resolves; the log of `find` says which
and why, and `report` fails.

**When the task `load` fails**, the run that it triggered has failed, or its DAG is paused: its link *Triggered DAG*
leads there. To try again, trigger `bi_backfill` again instead of clearing it: it then looks at what is missing by
then.
"""

from bi_ops.airflow.backfill_dag import build_backfill_dag

dag = build_backfill_dag(__doc__)  # found by Airflow, which looks for DAG objects here
