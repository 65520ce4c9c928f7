"""The measured costs from which `make sizing` predicts; docs/sizing.md says how each was measured.

`make bench-sizing` measures them again. The machine has two cores, and runs Airflow on LocalExecutor and all databases;
the data is the demo's.
"""

from __future__ import annotations

from dataclasses import dataclass

from bi_ops.catalog.jobs import Job, get_job


@dataclass(frozen=True)
class TaskCost:
    """What a task costs in Airflow, without rows.

    Attributes:
        core_seconds: Processor time of Airflow's services, the task's process and both databases.
        slot_seconds: How long it holds a worker slot when nothing else runs.
    """

    core_seconds: float
    slot_seconds: float


TASK_COSTS = {
    # Table 1 of docs/sizing.md: 73 tasks compared with 11, on four slots and on one.
    "local": TaskCost(core_seconds=0.25, slot_seconds=0.7),
    # docs/celery-and-kubernetes.md, Scaling results: 258 tasks on four workers and on one.
    "celery": TaskCost(core_seconds=1.3, slot_seconds=1.8),
}
"""By executor."""
RUN_START_SECONDS = 5.2
"""Of a run's seconds, those in which the scheduler starts its tasks one after the other (table 1)."""
REGION_CORE_SECONDS = 0.005
"""Processor time that each region of MEG_REGIONS adds to each task, whose process parses the whole DAG (table 1)."""
MONGO_CONNECTIONS_PER_TASK = 4
"""Sampled every second during the runs of table 1."""


@dataclass(frozen=True)
class JobCost:
    """What one load of a job costs for each of its documents, from loads without Airflow (table 2 of docs/sizing.md).

    Attributes:
        job: The job.
        documents_per_form: The documents of one load for each form; for churn, the most.
        fixed_documents: Its documents that do not depend on the forms.
        read_months: How many months of observations it reads; 0 for all that MEG has.
        document_us: Processor time for a document, of the task and both databases, in microseconds.
        observation_us: Likewise for each observation in the months that it reads.
        live_bytes: Size on MongoDB's disk, compressed.
        raw_bytes: The same, not compressed.
        id_index_bytes: Size of the index of `_id`.
        other_index_bytes: Size of the recommended indexes.
        staged_bytes: Size of the staged document on MongoDB's disk.
        meg_bytes: Bytes from and to MEG.
        mongo_bytes: Bytes from and to MongoDB.
    """

    job: Job
    documents_per_form: float
    read_months: int
    document_us: float
    observation_us: float
    live_bytes: float
    raw_bytes: float
    id_index_bytes: float
    other_index_bytes: float
    staged_bytes: float
    meg_bytes: float
    mongo_bytes: float
    fixed_documents: int = 0


JOB_COSTS = (
    JobCost(
        job=get_job("monthly_submissions"),
        documents_per_form=1,
        read_months=1,
        document_us=41,
        observation_us=4.6,
        live_bytes=117,
        raw_bytes=505,
        id_index_bytes=29,
        other_index_bytes=53,
        staged_bytes=95,
        meg_bytes=256,
        mongo_bytes=1451,
    ),
    JobCost(
        job=get_job("monthly_sessions"),
        documents_per_form=1,
        read_months=1,
        document_us=37,
        observation_us=5.5,
        live_bytes=113,
        raw_bytes=486,
        id_index_bytes=29,
        other_index_bytes=53,
        staged_bytes=95,
        meg_bytes=249,
        mongo_bytes=1393,
    ),
    JobCost(
        job=get_job("top_users"),
        fixed_documents=80,
        documents_per_form=0,
        read_months=12,
        document_us=50,
        observation_us=0.92,
        live_bytes=307,
        raw_bytes=350,
        id_index_bytes=256,
        other_index_bytes=0,
        staged_bytes=1587,
        meg_bytes=575,
        mongo_bytes=2116,
    ),
    JobCost(
        job=get_job("quarterly_form_churn"),
        documents_per_form=8,
        read_months=0,
        document_us=25,
        observation_us=0.58,
        live_bytes=101,
        raw_bytes=431,
        id_index_bytes=29,
        other_index_bytes=23,
        staged_bytes=81,
        meg_bytes=192,
        mongo_bytes=1207,
    ),
    JobCost(
        job=get_job("institutions"),
        documents_per_form=1 / 6,
        read_months=0,
        document_us=142,
        observation_us=0.93,
        live_bytes=121,
        raw_bytes=513,
        id_index_bytes=29,
        other_index_bytes=0,
        staged_bytes=104,
        meg_bytes=253,
        mongo_bytes=1453,
    ),
    JobCost(
        job=get_job("forms"),
        documents_per_form=1.1,
        read_months=0,
        document_us=35,
        observation_us=0.59,
        live_bytes=110,
        raw_bytes=469,
        id_index_bytes=28,
        other_index_bytes=0,
        staged_bytes=92,
        meg_bytes=206,
        mongo_bytes=1322,
    ),
    JobCost(
        job=get_job("security_risk_clients"),
        documents_per_form=1 / 6,
        read_months=0,
        document_us=70,
        observation_us=0,
        live_bytes=155,
        raw_bytes=668,
        id_index_bytes=24,
        other_index_bytes=0,
        staged_bytes=116,
        meg_bytes=369,
        mongo_bytes=1917,
    ),
)
