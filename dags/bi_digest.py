"""
# BI digest

Sends the month's overview: the main figures with their changes, the clients that grow, fade or need attention, and
whether everything is up to date. It goes to the connection `bi_digest`, as HTML with charts by email, and as a short
text to chat services; it names no people. Without the connection the task is skipped, and its log says so.

Each publish of a monthly collection of MEG's regions starts a run. The digest is sent by the run that finds the month
published by every region of `MEG_REGIONS`; the runs before are skipped, and their logs say what is missing. A month is
sent once: loading it again does not send it again. The collection `bi_digest` holds what was sent.

**Trigger** it to send the digest again, or without a region that is down:

| period | what it sends |
| --- | --- |
| empty | the newest month that every region has published |
| a month, such as `2026-10` | that month, of the regions that have published it; it names the others |

**When the task `send` fails**, the last lines of its log say what to do. The next attempt sends it to the services that
have not taken it.
"""

from bi_ops.airflow.digest_dag import build_digest_dag

dag = build_digest_dag(__doc__)  # found by Airflow, which looks for DAG objects here
