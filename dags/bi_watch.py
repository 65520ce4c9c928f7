"""
# BI watch

Reports what is late. Every hour it compares the ledger (`bi_loads`) with what is due of each region's MEG: a slice is
late if it is not published `BI_DEADLINE_HOURS` after its period ended, or after its snapshot was due. The cause does
not matter: a run failed, a DAG is paused or was never parsed, Airflow was off, or `BI_AGGREGATE` is off.

Each late slice is reported once to the connection `bi_notify`, and once more when it is published. The collection
`bi_watch` holds what was reported. Without the connection the DAG does nothing, and its log says so.

**Trigger** it at any time; it has no parameters, and repeats no report.

**When the task `watch` fails**, the last lines of its log say what to do. What could not be sent is sent by the next
attempt or run.
"""

from bi_ops.airflow.watch_dag import build_watch_dag

dag = build_watch_dag(__doc__)  # found by Airflow, which looks for DAG objects here
