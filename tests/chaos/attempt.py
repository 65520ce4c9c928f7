"""Runs one attempt of a task in its own process, with the operator that Airflow runs but without Airflow's services."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from pymongo import monitoring

from bi_ops.airflow.operators import PlanOperator, PublishOperator, StageOperator
from bi_ops.catalog.periods import Period
from bi_ops.catalog.sql_templates import render_sql
from tests.load_helpers import SUBMISSIONS

DAG = "bi_monthly"
MONTH = Period.parse("2026-10", SUBMISSIONS.cadence, "UTC")
LIST_FORMS = render_sql("list_forms.sql")
QUERY = render_sql(f"{SUBMISSIONS.name}.sql")


@dataclass(frozen=True)
class Kill:
    """When to kill an attempt's process.

    Attributes:
        command: The number of the command to MongoDB, counted from 1; 0 for no kill.
        answered: Whether to kill when the command is answered instead of when it is sent.
    """

    command: int = 0
    answered: bool = False


class _Killer(monitoring.CommandListener):
    def __init__(self, kill: Kill) -> None:
        self._remaining = kill.command
        self._answered = kill.answered

    def started(self, _event: monitoring.CommandStartedEvent) -> None:
        if not self._answered:
            self._count()

    def succeeded(self, _event: monitoring.CommandSucceededEvent) -> None:
        if self._answered:
            self._count()

    def failed(self, _event: monitoring.CommandFailedEvent) -> None:
        pass

    def _count(self) -> None:
        self._remaining -= 1
        if self._remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run_attempt(
    step: str,
    run_id: str,
    inputs: Mapping[str, Any],
    environment: Mapping[str, str],
    kill: Kill,
    log: Path,
    sender: Connection,
) -> None:
    """Run one attempt of `plan`, `stage` or `publish` and send its outcome: the result, or whether it is retried."""
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(environment)
    if kill.command:
        monitoring.register(_Killer(kill))
    xcoms: dict[str, Any] = {}
    map_index = inputs.get("map_index", -1)
    context: Any = {
        "dag": SimpleNamespace(dag_id=DAG),
        "run_id": run_id,
        "dag_run": SimpleNamespace(
            data_interval_start=MONTH.start,
            data_interval_end=MONTH.end,
            logical_date=MONTH.start,
            run_after=MONTH.end,
            run_type="scheduled",
            start_date=datetime.now(timezone.utc),
        ),
        "params": {"jobs": [SUBMISSIONS.name], "regions": ["eu"], "period": None, "force": False, "dry_run": False},
        "ti": SimpleNamespace(xcom_push=xcoms.__setitem__, map_index=map_index),
    }
    try:
        result = _operator(step, inputs).execute(context)
    except AirflowFailException as error:
        sender.send(("failed for good", str(error), xcoms))
    except AirflowSkipException as error:
        sender.send(("skipped", str(error), xcoms))
    except Exception as error:
        sender.send(("failed", f"{type(error).__name__}: {error}", xcoms))
    else:
        sender.send(("succeeded", result, xcoms))


def _operator(step: str, inputs: Mapping[str, Any]) -> Any:
    task_id, timeout = f"{SUBMISSIONS.name}.eu.{step}", timedelta(minutes=2)
    if step == "plan":
        return PlanOperator(task_id=task_id, job=SUBMISSIONS, region="eu", sql=LIST_FORMS, execution_timeout=timeout)
    if step == "stage":
        inputs = {name: inputs[name] for name in ("load", "forms")}
        return StageOperator(task_id=task_id, sql=QUERY, **inputs, execution_timeout=timeout)
    return PublishOperator(task_id=task_id, **inputs, execution_timeout=timeout)
