"""
# BI doctor

Checks everything that the jobs need, and changes nothing: Airflow (deployment, versions, executor, secrets backend);
the settings in force; each region's MEG (connection, TLS, network address, privileges, personal data access, required
columns, indexes, time zone, clock skew); MongoDB (connection, TLS, network address, replica set, privileges,
collections, published data, indexes, clock skew).

**Trigger** it after changing a connection, a role or a schema, and when a job fails. The report is in the log of the
task `examine`; each problem has expected and actual values and a hint. The task fails if a check fails; warnings do not
fail it.
"""

from bi_ops.airflow.dag_factory import build_doctor_dag

dag = build_doctor_dag(__doc__)  # found by Airflow, which looks for DAG objects here
