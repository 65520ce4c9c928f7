"""Predicts the runs, the storage and the connections of an installation from the measured costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from bi_ops.catalog.jobs import Job, LoadMode
from bi_ops.catalog.periods import Cadence
from bi_ops.mongo.store import STAGING_TTL
from bi_ops.settings import Settings
from dev import sizing_costs as costs
from dev.sizing_costs import JOB_COSTS, JobCost, TaskCost

_SECONDS_PER_US = 1e-6
_TASKS_PER_GROUP = 2
"""plan and publish."""


@dataclass(frozen=True)
class Installation:
    """What a prediction is made for.

    Attributes:
        regions: The number of regions.
        forms: The forms of a region that are not archived.
        months: How many months MEG and the live database hold.
        observations: The observations of a form in a month.
        cores: Processor cores of all machines together: Airflow, its workers, PostgreSQL and MongoDB.
        slots: Tasks of one run that may run at once.
        executor: Airflow's executor, `local` or `celery`.
        settings: The settings.
    """

    regions: int
    forms: int
    months: int = 24
    observations: int = 20
    cores: int = 2
    slots: int = 16
    executor: str = "local"
    settings: Settings = field(default_factory=lambda: Settings.from_env({}))

    @property
    def chunks(self) -> int:
        """The chunks of a region."""
        return -(-self.forms // self.settings.forms_per_chunk)

    def stage_tasks(self, job: Job) -> int:
        """The stage tasks of one load of a job."""
        return min(self.chunks, self.settings.max_mapped_tasks) if job.chunked else 1

    def parallel_stage_tasks(self, job: Job) -> int:
        """Those that may run at once."""
        return min(self.stage_tasks(job), self.settings.max_parallel_chunks, self.slots)

    def documents(self, cost: JobCost) -> float:
        """The documents of one load of a job."""
        return self.forms * cost.documents_per_form + cost.fixed_documents

    def read_observations(self, cost: JobCost) -> float:
        """The observations that one load of a job reads."""
        months = min(cost.read_months, self.months) or self.months
        return self.forms * self.observations * months

    def work_seconds(self, cost: JobCost) -> float:
        """Processor time of one load of a job, beyond that of its tasks."""
        documents = self.documents(cost) * cost.document_us
        observations = self.read_observations(cost) * cost.observation_us
        return (documents + observations) * _SECONDS_PER_US


@dataclass(frozen=True)
class Run:
    """The prediction for one run of a DAG.

    Attributes:
        cadence: The cadence, which decides the DAG.
        installation: What it is predicted for.
    """

    cadence: Cadence
    installation: Installation

    @property
    def jobs(self) -> list[JobCost]:
        """The costs of its jobs."""
        return [cost for cost in JOB_COSTS if cost.job.cadence is self.cadence]

    @property
    def tasks(self) -> int:
        """Its task instances: the gate, the wait for a later hour, and the tasks of each job and region."""
        waits = len({cost.job.earliest_hour for cost in self.jobs} - {0})
        groups = sum(_TASKS_PER_GROUP + self.installation.stage_tasks(cost.job) for cost in self.jobs)
        return 1 + waits + self.installation.regions * groups

    @property
    def documents(self) -> float:
        """The documents that it publishes."""
        return self.installation.regions * sum(map(self.installation.documents, self.jobs))

    @property
    def useful_slots(self) -> int:
        """The most tasks that it can run at once."""
        parallel = sum(min(self.installation.stage_tasks(cost.job), self._max_parallel) for cost in self.jobs)
        return self.installation.regions * parallel

    @property
    def _max_parallel(self) -> int:
        return self.installation.settings.max_parallel_chunks

    @property
    def core_seconds(self) -> float:
        """Processor time of Airflow, its tasks and all databases."""
        return self.tasks * (self._task.core_seconds + self._parse_seconds) + self._work_seconds

    @property
    def _task(self) -> TaskCost:
        return costs.TASK_COSTS[self.installation.executor]

    @property
    def _parse_seconds(self) -> float:
        return costs.REGION_CORE_SECONDS * self.installation.regions

    @property
    def _work_seconds(self) -> float:
        return self.installation.regions * sum(map(self.installation.work_seconds, self.jobs))

    @cached_property
    def bounds(self) -> dict[str, float]:
        """The seconds that it takes at least, by what it waits for."""
        here = self.installation
        slot_seconds = self.tasks * (self._task.slot_seconds + self._parse_seconds) + self._work_seconds
        return {
            "cores": self.core_seconds / here.cores,
            "worker slots": slot_seconds / min(here.slots, self.useful_slots),
            "the longest job": max(
                here.work_seconds(cost) / min(here.parallel_stage_tasks(cost.job), here.cores) for cost in self.jobs
            ),
        }

    @property
    def limited_by(self) -> str:
        """What it waits for."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    @property
    def seconds(self) -> float:
        """Its duration."""
        return costs.RUN_START_SECONDS + max(self.bounds.values())

    @property
    def meg_bytes(self) -> float:
        """The bytes from and to MEG."""
        here = self.installation
        return here.regions * sum(here.documents(cost) * cost.meg_bytes for cost in self.jobs)

    @property
    def mongo_bytes(self) -> float:
        """The bytes from and to MongoDB."""
        here = self.installation
        return here.regions * sum(here.documents(cost) * cost.mongo_bytes for cost in self.jobs)


@dataclass(frozen=True)
class Storage:
    """The prediction for MongoDB's disk, in bytes, on each member of the replica set.

    Attributes:
        live: The live collections, compressed.
        live_raw: The same, not compressed: the most that names which repeat less than the demo's can take.
        id_indexes: Their indexes of `_id`.
        other_indexes: The recommended indexes.
        staging: The loads of 30 days.
        staging_after_backfill: The same, after all months were loaded at once.
    """

    live: float
    live_raw: float
    id_indexes: float
    other_indexes: float
    staging: float
    staging_after_backfill: float

    @classmethod
    def of(cls, here: Installation) -> Storage:
        """The storage of an installation."""

        def live(name: str) -> float:
            return sum(_live_documents(here, cost) * float(getattr(cost, name)) for cost in JOB_COSTS)

        staged = {cadence: _staged_bytes(here, cadence) for cadence in Cadence}
        weekly_loads = -(-STAGING_TTL.days // 7)
        others = staged[Cadence.QUARTERLY] + weekly_loads * staged[Cadence.WEEKLY]
        return cls(
            live("live_bytes"),
            live("raw_bytes"),
            live("id_index_bytes"),
            live("other_index_bytes"),
            staged[Cadence.MONTHLY] + others,
            staged[Cadence.MONTHLY] * here.months + others,
        )

    @property
    def total(self) -> float:
        """Data and indexes, with the loads of 30 days."""
        return self.live + self.id_indexes + self.other_indexes + self.staging


def _live_documents(here: Installation, cost: JobCost) -> float:
    periods = here.months if cost.job.mode is LoadMode.REPLACE_PERIOD else 1
    return here.regions * here.documents(cost) * periods


def _staged_bytes(here: Installation, cadence: Cadence) -> float:
    loads = [cost for cost in JOB_COSTS if cost.job.cadence is cadence]
    return here.regions * sum(here.documents(cost) * cost.staged_bytes for cost in loads)


def meg_connections(here: Installation) -> int:
    """The most connections to one MEG, if all jobs read it at once."""
    return sum(here.parallel_stage_tasks(cost.job) for cost in JOB_COSTS)


def mongo_connections(here: Installation) -> int:
    """The most connections to MongoDB, while all worker slots are in use."""
    return here.slots * costs.MONGO_CONNECTIONS_PER_TASK
