"""The gate before all jobs: skips a run while `BI_AGGREGATE` is off, and rejects invalid parameters."""

from __future__ import annotations

import logging
import os
from datetime import datetime, timezone
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from bi_ops.airflow.run_parameters import check_run_parameters
from bi_ops.airflow.task_error_log import log_error
from bi_ops.catalog.jobs import jobs_for
from bi_ops.catalog.periods import Cadence, RunDates
from bi_ops.errors import BiError, GateClosedError
from bi_ops.settings import Settings

log = logging.getLogger(__name__)


def require_open_gate(settings: Settings) -> None:
    """Check that the jobs may run.

    Raises:
        GateClosedError: `BI_AGGREGATE` is off in this environment.
    """
    if not settings.aggregate:
        raise GateClosedError(
            "BI_AGGREGATE is off, so nothing is read or published",
            context="gate",
            expected="BI_AGGREGATE=1",
            actual=repr(os.environ.get("BI_AGGREGATE", "")),
            hint="Set BI_AGGREGATE=1, restart Airflow's processes and clear this run.",
        )


def run_dates(run: Any) -> RunDates:
    """What Airflow knows about the time of a DAG run."""
    return RunDates(
        run_after=run.run_after,
        logical_date=run.logical_date,
        interval_start=run.data_interval_start,
        interval_end=run.data_interval_end,
        is_scheduled=str(getattr(run.run_type, "value", run.run_type)) in ("scheduled", "backfill"),
    )


def check_run(dag_run: Any, cadence: str) -> bool:
    """Whether the jobs may run; fails a run with invalid parameters.

    Args:
        dag_run: The run.
        cadence: The cadence of its DAG.
    """
    settings = Settings.from_env()
    try:
        require_open_gate(settings)
        check_run_parameters(
            Cadence(cadence),
            dag_run.conf or {},
            jobs=[job.name for job in jobs_for(Cadence(cadence))],
            regions=settings.regions,
            timezone=settings.timezone,
            dates=run_dates(dag_run),
            now=datetime.now(timezone.utc),
        )
    except GateClosedError as error:
        log_error(log.warning, error)
        return False
    except BiError as error:
        log_error(log.error, error)
        raise AirflowFailException(error.summary) from None
    return True
