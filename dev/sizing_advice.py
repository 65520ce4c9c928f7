"""The limits at which an installation should change a setting, as lines of advice for `make sizing`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bi_ops.catalog.periods import Cadence
from bi_ops.load.publish import MAX_TRANSACTION_DOCUMENTS
from dev.sizing_costs import JOB_COSTS
from dev.sizing_model import Installation, Run, meg_connections

# Airflow's defaults (airflow/config_templates/config.yml).
MAX_ACTIVE_TASKS_PER_DAG = 16
PARALLELISM = 32
DEFAULT_POOL_SLOTS = 128

MEG_CONNECTION_LIMIT = 50
"""The role's limit in include/meg/reader_role.sql."""
STATEMENT_TIMEOUT_SECONDS = 600
"""After which the reader of MEG cancels a statement."""
MAX_STAGE_SECONDS = 300
"""A longer stage task repeats too much work when it is retried."""
CACHE_DOCUMENTS = 50_000
"""A slice from which MongoDB's cache should have 2 GB; docs/performance.md, Known gaps."""
TARGET_SECONDS = 3_600
"""A monthly run should take less."""
_WORTHWHILE_SECONDS = 60
"""Advise another value if a run is shorter by more than this."""
_AS_GOOD = 1.1
"""Of values whose runs take up to this many times the shortest, the largest is advised: its tasks are the shortest."""
_MAPPED_TASKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def advice(here: Installation) -> list[str]:
    """What to change, in whole sentences; empty if nothing."""
    return [*_mapped_tasks(here), *_slots(here), *_duration(here), *_meg(here), *_mongo(here)]


def with_mapped_tasks(here: Installation, number: int) -> Installation:
    """The same with another `BI_MAX_MAPPED_TASKS`."""
    return replace(here, settings=here.settings.model_copy(update={"max_mapped_tasks": number}))


def _monthly(here: Installation) -> Run:
    return Run(Cadence.MONTHLY, here)


def _stage_seconds(here: Installation) -> float:
    """Processor time of the longest stage task in chunks."""
    return max(here.work_seconds(cost) / here.stage_tasks(cost.job) for cost in JOB_COSTS if cost.job.chunked)


def _mapped_tasks(here: Installation) -> Iterator[str]:
    candidates = [with_mapped_tasks(here, number) for number in _MAPPED_TASKS]
    allowed = [candidate for candidate in candidates if _stage_seconds(candidate) <= MAX_STAGE_SECONDS]
    if not allowed:
        return
    fastest = min(_monthly(candidate).seconds for candidate in allowed)
    best = max(
        (candidate for candidate in allowed if _monthly(candidate).seconds <= fastest * _AS_GOOD),
        key=lambda candidate: candidate.settings.max_mapped_tasks,
    )
    run, better = _monthly(here), _monthly(best)
    if _stage_seconds(here) > MAX_STAGE_SECONDS or run.seconds - better.seconds > _WORTHWHILE_SECONDS:
        yield (
            f"BI_MAX_MAPPED_TASKS={best.settings.max_mapped_tasks} instead of {here.settings.max_mapped_tasks}: "
            f"bi_monthly then has {better.tasks:,} tasks and takes {better.seconds / 60:.1f} instead of "
            f"{run.seconds / 60:.1f} minutes."
        )


def _slots(here: Installation) -> Iterator[str]:
    limits = {
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": MAX_ACTIVE_TASKS_PER_DAG,
        "AIRFLOW__CORE__PARALLELISM": PARALLELISM,
        "the slots of default_pool": DEFAULT_POOL_SLOTS,
    }
    used = min(here.slots, _monthly(here).useful_slots)
    names = [f"{name} ({limit})" for name, limit in limits.items() if used > limit]
    if names:
        yield f"{used} tasks of bi_monthly at once need more than Airflow's default of {', '.join(names)}: raise it."
    if here.slots > used:
        yield f"bi_monthly uses {used} of {here.slots} worker slots: the others are for other DAGs."


def _duration(here: Installation) -> Iterator[str]:
    run = _monthly(here)
    if run.limited_by == "worker slots":
        yield "More worker slots make bi_monthly faster: it waits for them, not for processors."
    if run.seconds <= TARGET_SECONDS:
        return
    cores = -(-int(run.core_seconds) // (TARGET_SECONDS // 2))
    yield (
        f"bi_monthly takes {run.seconds / 60:.0f} minutes; with {cores} cores and {2 * cores} worker slots, on several "
        "workers, it takes about half an hour."
    )


def _meg(here: Installation) -> Iterator[str]:
    connections = meg_connections(here)
    if connections > MEG_CONNECTION_LIMIT:
        yield (
            f"{connections} connections to one MEG exceed the role's limit of {MEG_CONNECTION_LIMIT} "
            "(include/meg/reader_role.sql): lower BI_MAX_PARALLEL_CHUNKS, or raise the limit."
        )
    for cost in JOB_COSTS:
        seconds = here.work_seconds(cost)
        if not cost.job.chunked and seconds > STATEMENT_TIMEOUT_SECONDS:
            yield (
                f"{cost.job.name} reads {here.read_observations(cost) / 1e6:,.0f} million observations in one query of "
                f"about {seconds / 60:.0f} minutes; MEG BI cancels a statement after "
                f"{STATEMENT_TIMEOUT_SECONDS // 60} minutes. Measure it before you rely on it."
            )


def _mongo(here: Installation) -> Iterator[str]:
    for cost in JOB_COSTS:
        transactions = -(-int(here.documents(cost)) // MAX_TRANSACTION_DOCUMENTS)
        if transactions > 1:
            yield (
                f"{cost.job.name}: a region's {here.documents(cost):,.0f} documents are replaced in {transactions} "
                "transactions, one after the other; until the last, reports may see old and new documents."
            )
    if here.forms >= CACHE_DOCUMENTS:
        yield "Give MongoDB a cache of 2 GB or more: 0.5 GB were too few for a slice of 100,000 documents."
