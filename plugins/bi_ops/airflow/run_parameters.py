"""Checks all parameters of a triggered DAG run at once, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from bi_ops.catalog.periods import PERIOD_EXAMPLES, Cadence, RunDates, resolve_period
from bi_ops.errors import PeriodError, RunParametersError

PARAMETERS = ("jobs", "regions", "period", "force", "dry_run")


@dataclass(frozen=True)
class _Problem:
    expected: str
    actual: str


def check_run_parameters(
    cadence: Cadence,
    conf: Mapping[str, Any],
    *,
    jobs: Sequence[str],
    regions: Sequence[str],
    timezone: str,
    dates: RunDates,
    now: datetime,
) -> None:
    """Check the parameters that a run was triggered with.

    Args:
        cadence: The cadence of the DAG.
        conf: The parameters that were set; the others have their defaults.
        jobs: The DAG's jobs.
        regions: Its regions.
        timezone: The time zone of its periods.
        dates: What Airflow knows about the time of the run.
        now: The present.

    Raises:
        RunParametersError: Parameters are invalid; the message names each with the allowed values.
    """
    problems = [
        *_unknown_names(conf),
        *_selection(conf, "jobs", jobs),
        *_selection(conf, "regions", regions),
        *_flags(conf),
        *_period(cadence, conf, timezone, dates, now),
    ]
    if problems:
        raise RunParametersError(
            "invalid run parameters",
            context=f"DAG {cadence.dag_id}",
            expected="\n".join(problem.expected for problem in problems),
            actual="\n".join(problem.actual for problem in problems),
            hint="Trigger the run again with valid parameters; nothing was read.",
        )


def _unknown_names(conf: Mapping[str, Any]) -> Iterator[_Problem]:
    for name in conf.keys() - set(PARAMETERS):
        matches = get_close_matches(name.lower().replace("-", "_"), PARAMETERS, n=1)
        suggestion = f"; did you mean {matches[0]}?" if matches else ""
        yield _Problem(f"only the parameters {', '.join(PARAMETERS)}", f"parameter {name!r}{suggestion}")


def _selection(conf: Mapping[str, Any], name: str, known: Sequence[str]) -> Iterator[_Problem]:
    if name not in conf:
        return
    selected = conf[name]
    expected = f"{name}: a list of one or more of {', '.join(known)}"
    if not isinstance(selected, (list, tuple)) or not selected:
        yield _Problem(expected, f"{name}: {selected!r}")
    elif unknown := [item for item in selected if item not in known]:
        yield _Problem(expected, f"{name}: {', '.join(map(repr, unknown))}")


def _flags(conf: Mapping[str, Any]) -> Iterator[_Problem]:
    for name in ("force", "dry_run"):
        if not isinstance(conf.get(name, False), bool):
            yield _Problem(f"{name}: true or false", f"{name}: {conf[name]!r}")


def _period(
    cadence: Cadence, conf: Mapping[str, Any], timezone: str, dates: RunDates, now: datetime
) -> Iterator[_Problem]:
    requested = conf.get("period")
    if requested is not None and not isinstance(requested, str):
        yield _Problem(f"period: {PERIOD_EXAMPLES[cadence]}", f"period: {requested!r}")
        return
    if not requested and cadence is Cadence.WEEKLY:
        return
    try:
        resolve_period(cadence, timezone, requested=requested, dates=dates, now=now)
    except PeriodError as error:
        yield _Problem(f"period: {error.expected}", f"period: {error.actual}")
