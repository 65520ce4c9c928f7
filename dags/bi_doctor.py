"""
# BI doctor

Examines all that the jobs need, and changes nothing: the settings in force, each region's MEG (its connection, that the
role can only read, that each relation has the columns it must have, that the indexes which make chunks cheap are there,
its clock) and MongoDB (its connection, replica set, encryption, the account's rights, its clock, the indexes that the
reports would like).

**Trigger** it after a change of connections, roles or schemas, and when a job fails. The report is in the log of
`examine`, and each line that is not well says what to do. The task fails when something would keep the jobs from
running well; warnings do not fail it.
"""

from bi_ops.airflow.dag_factory import build_doctor_dag

dag = build_doctor_dag(__doc__)  # found by Airflow, which looks for DAG objects here
