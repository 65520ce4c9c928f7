"""Stores the state of each load in the staging database: its plan, and the completion of each of its stage tasks.

Staged data belongs to its load, which has a random id, and not to a DAG run's id, which may be the same in two Airflow
installations or after a run is deleted and created again. Each stage task ends by writing its completion, from which
publish verifies that the load is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from uuid import uuid4

from bson import ObjectId

from bi_ops.catalog.slices import Slice
from bi_ops.errors import StagingError, SupersededError, abbreviate
from bi_ops.load.documents import SCHEMA_VERSION
from bi_ops.mongo.store import DagRunRef, Document, Store

Chunk = list[int] | None
"""The form ids of one chunk; None for a job without chunks, which reads everything in one query."""


@dataclass(frozen=True)
class LoadSettings:
    """The settings that must not change between the plan of a load and its publish.

    Attributes:
        timezone: The time zone of its periods.
        forms_per_chunk: The number of forms in a chunk.
        pseudonymised: Whether names of people are replaced.
        schema_version: The version of its documents.
    """

    timezone: str
    forms_per_chunk: int
    pseudonymised: bool = False
    schema_version: int = SCHEMA_VERSION


_MAX_TASK_NAMES = 10
"""The most missing tasks that a message names."""
_SETTING_NAMES = {
    "timezone": "BI_TIMEZONE",
    "forms_per_chunk": "BI_FORMS_PER_CHUNK",
    "pseudonymised": "BI_PSEUDONYMISE",
    "schema_version": "the schema version of the documents",
}


@dataclass(frozen=True)
class Load:
    """One load of one slice.

    Attributes:
        slice: The slice.
        run: The DAG run that planned it.
        settings: The settings under which it was planned.
        started_at: When its plan began.
        id: Its random id.
    """

    slice: Slice
    run: DagRunRef
    settings: LoadSettings
    started_at: datetime
    id: str = field(default_factory=lambda: uuid4().hex)

    def check_settings(self, current: LoadSettings) -> None:
        """Check that no setting of the load has changed since it was planned.

        Args:
            current: The settings in force.

        Raises:
            StagingError: A setting has changed.
        """
        for name, label in _SETTING_NAMES.items():
            planned, present = getattr(self.settings, name), getattr(current, name)
            if planned != present:
                raise StagingError(
                    f"{label} has changed since this load was planned",
                    context=str(self.slice),
                    expected=f"the value as planned, {planned}",
                    actual=str(present),
                    hint=clear_group_hint(self.slice.task_group),
                )


@dataclass(frozen=True)
class Attempt:
    """An attempt of a stage task.

    Attributes:
        id: Its id.
        chunks: The chunks that the plan assigned to the task.
    """

    id: ObjectId
    chunks: Sequence[Chunk]


@dataclass(frozen=True)
class Completion:
    """The completion of a stage task.

    Attributes:
        attempt_id: The attempt of the task.
        chunks: The number of chunks that it read.
        documents: The number of documents that it staged.
        measure: The sum of the job's main measure over these documents.
        read_at: When MEG was read, by MEG's clock.
    """

    attempt_id: ObjectId
    chunks: int
    documents: int
    measure: int
    read_at: datetime


@dataclass(frozen=True)
class StagedLoad:
    """A load whose stage tasks have all completed, so that it can be published.

    Attributes:
        load: The load.
        completions: The completion of each stage task, by its number.
    """

    load: Load
    completions: Mapping[int, Completion]

    @property
    def chunks(self) -> int:
        """The number of chunks that were read."""
        return sum(completion.chunks for completion in self.completions.values())

    @property
    def documents(self) -> int:
        """The number of staged documents."""
        return sum(completion.documents for completion in self.completions.values())

    @property
    def measure(self) -> int:
        """The sum of the job's main measure over them."""
        return sum(completion.measure for completion in self.completions.values())

    @property
    def read_at(self) -> datetime:
        """When MEG was read: the earliest `read_at` of its tasks."""
        return min(completion.read_at for completion in self.completions.values())


def clear_group_hint(task_group: str) -> str:
    """The hint for a load that cannot continue: plan and stage it again."""
    return f"Clear the task group {task_group} of this run to read MEG again."


class LoadStates:
    """The states of the loads in the staging database.

    Args:
        store: The databases.
    """

    def __init__(self, store: Store) -> None:
        self._loads = store.loads

    def create(self, load: Load, tasks: Sequence[Sequence[Chunk]]) -> None:
        """Store a planned load.

        Args:
            load: The load.
            tasks: The chunks of each stage task.
        """
        self._loads.insert_one(
            {
                "_id": load.id,
                "staged_at": datetime.now(timezone.utc),
                **load.slice.to_json(),
                **asdict(load.settings),
                "dag_id": load.run.dag_id,
                "run_id": load.run.run_id,
                "started_at": load.started_at,
                "tasks": [list(chunks) for chunks in tasks],
                "attempts": {},
                "completions": {},
            }
        )

    def get(self, load_id: str, task_group: str) -> Load:
        """The load with this id, without its form ids, which for many forms are large.

        Args:
            load_id: Its id.
            task_group: The calling task's task group, for the error.

        Raises:
            StagingError: There is no such load, or it has expired.
        """
        row = self._loads.find_one({"_id": load_id}, {"tasks": 0})
        if row is None:
            raise _unknown(load_id, task_group)
        return Load(
            slice=Slice.from_json(row, row["timezone"]),
            run=DagRunRef(row["dag_id"], row["run_id"]),
            settings=LoadSettings(**{name: row[name] for name in _SETTING_NAMES}),
            started_at=row["started_at"],
            id=row["_id"],
        )

    def begin_task(self, load: Load, task: int) -> Attempt:
        """Begin an attempt of a stage task, which voids an earlier attempt's completion.

        Raises:
            StagingError: The load has expired, or its plan has no such task.
        """
        # Read by itself: a find-and-modify that the driver repeats after an outage returns no computed field.
        chunks = {"chunks": {"$arrayElemAt": ["$tasks", task]}}
        row: Document | None = self._loads.find_one({"_id": load.id}, chunks)
        if row is not None and "chunks" not in row:
            raise _unplanned(load, task)
        attempt_id = ObjectId()
        change = {
            "$set": {f"attempts.{task}": attempt_id, "staged_at": datetime.now(timezone.utc)},
            "$unset": {f"completions.{task}": ""},
        }
        if row is None or not self._loads.update_one({"_id": load.id}, change).matched_count:
            raise _unknown(load.id, load.slice.task_group)
        return Attempt(attempt_id, row["chunks"])

    def complete_task(self, load: Load, task: int, completion: Completion) -> None:
        """Record a stage task's completion, once all of its documents are staged.

        Raises:
            SupersededError: A later attempt of the task has begun.
        """
        current = {"_id": load.id, f"attempts.{task}": completion.attempt_id}
        change = {"$set": {f"completions.{task}": asdict(completion)}}
        if not self._loads.update_one(current, change).matched_count:
            raise SupersededError(
                "another attempt of this stage task has started",
                context=f"{load.slice}, stage task {task}",
                expected="one attempt of a task at a time",
                actual="a later attempt",
                hint="Retried automatically. If it persists, end the other process and clear this task.",
            )

    def staged(self, load: Load) -> StagedLoad:
        """The load with the completions of all its stage tasks.

        Raises:
            StagingError: A task of the plan has no completion, for example because it was marked success.
        """
        chunk_counts = {"$map": {"input": "$tasks", "in": {"$size": "$$this"}}}
        row: Document | None = self._loads.find_one({"_id": load.id}, {"completions": 1, "chunk_counts": chunk_counts})
        if row is None:
            raise _unknown(load.id, load.slice.task_group)
        completions = {int(task): Completion(**values) for task, values in row["completions"].items()}
        missing = [
            task
            for task, chunks in enumerate(row["chunk_counts"])
            if task not in completions or completions[task].chunks != chunks
        ]
        if missing:
            raise _incomplete(load, missing, len(row["chunk_counts"]))
        return StagedLoad(load, completions)


def _unplanned(load: Load, task: int) -> StagingError:
    return StagingError(
        "the stage task is not in the load's plan",
        context=str(load.slice),
        expected=f"a task of load {load.id}",
        actual=f"stage[{task}]",
        hint=clear_group_hint(load.slice.task_group),
    )


def _incomplete(load: Load, missing: Sequence[int], tasks: int) -> StagingError:
    names = abbreviate((f"stage[{task}]" for task in missing), _MAX_TASK_NAMES)
    return StagingError(
        "stage tasks have not completed, so nothing was published",
        context=str(load.slice),
        expected="every stage task completed; marking a task as success or skipping it stages nothing",
        actual=f"{len(missing)} of {tasks} not completed: {names}",
        hint=f"Clear these stage tasks with downstream, or the task group {load.slice.task_group} of this run.",
    )


def _unknown(load_id: str, task_group: str) -> StagingError:
    return StagingError(
        "the load is not in the staging database",
        context=task_group,
        expected=f"load {load_id}, planned within the last 30 days",
        actual="no such load",
        hint=clear_group_hint(task_group),
    )
