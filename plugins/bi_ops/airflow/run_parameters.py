"""Checks all parameters of a triggered DAG run at once, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from bi_ops.catalog.periods import PERIOD_EXAMPLES, Cadence, Period, RunDates, resolve_period
from bi_ops.errors import PeriodError, RunParametersError
from bi_ops.load.backfill_selection import Selection

PARAMETERS = ("jobs", "regions", "period", "force", "dry_run")
BACKFILL_PARAMETERS = ("jobs", "regions", "from", "to", "only_missing", "dry_run")
DIGEST_PARAMETERS = ("period",)
BACKFILL_DAG_ID = "bi_backfill"
DIGEST_DAG_ID = "bi_digest"
_ADDED_BY_AIRFLOW = {"openlineage"}
"""What TriggerDagRunOperator adds to the parameters where OpenLineage's provider is active."""


@dataclass(frozen=True)
class BackfillRequest:
    """What a run of `bi_backfill` was asked for.

    Attributes:
        selection: What it looks at.
        dry_run: Whether it only lists or compares, and loads nothing.
    """

    selection: Selection
    dry_run: bool = False


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
        *_unknown_names(conf, PARAMETERS),
        *_selection(conf, "jobs", jobs),
        *_selection(conf, "regions", regions),
        *_flags(conf, ("force", "dry_run")),
        *_period(cadence, conf, timezone, dates, now),
    ]
    _raise_for(problems, cadence.dag_id)


def check_backfill_parameters(
    conf: Mapping[str, Any], *, jobs: Sequence[str], regions: Sequence[str], timezone: str
) -> BackfillRequest:
    """Check the parameters that a run of `bi_backfill` was triggered with, and return what they ask for.

    Args:
        conf: The parameters that were set; the others have their defaults.
        jobs: All jobs.
        regions: All regions.
        timezone: The time zone of the months.

    Raises:
        RunParametersError: Parameters are invalid; the message names each with the allowed values.
    """
    months: dict[str, Period | None] = {}
    problems = [
        *_unknown_names(conf, BACKFILL_PARAMETERS),
        *_selection(conf, "jobs", jobs),
        *_selection(conf, "regions", regions),
        *_flags(conf, ("only_missing", "dry_run")),
        *_months(conf, timezone, months),
    ]
    _raise_for(problems, BACKFILL_DAG_ID)
    selection = Selection(
        jobs=conf.get("jobs", jobs),
        regions=conf.get("regions", regions),
        first=months["from"],
        last=months["to"],
        only_missing=conf.get("only_missing", True),
    )
    return BackfillRequest(selection, dry_run=conf.get("dry_run", False))


def check_digest_parameters(conf: Mapping[str, Any], *, timezone: str, dates: RunDates, now: datetime) -> Period | None:
    """Check the parameters that a run of `bi_digest` was triggered with, and return its month; None if it names none.

    Args:
        conf: The parameters that were set; the others have their defaults.
        timezone: The time zone of the months.
        dates: What Airflow knows about the time of the run.
        now: The present.

    Raises:
        RunParametersError: Parameters are invalid; the message names each with the allowed values.
    """
    requested = conf.get("period")
    problems = [*_unknown_names(conf, DIGEST_PARAMETERS)]
    if requested:
        problems += _period(Cadence.MONTHLY, conf, timezone, dates, now)
    _raise_for(problems, DIGEST_DAG_ID)
    return Period.parse(requested.strip(), Cadence.MONTHLY, timezone) if requested else None


def _raise_for(problems: Sequence[_Problem], dag_id: str) -> None:
    if problems:
        raise RunParametersError(
            "invalid run parameters",
            context=f"DAG {dag_id}",
            expected="\n".join(problem.expected for problem in problems),
            actual="\n".join(problem.actual for problem in problems),
            hint="Trigger the run again with valid parameters; nothing was read.",
        )


def _unknown_names(conf: Mapping[str, Any], known: Sequence[str]) -> Iterator[_Problem]:
    for name in conf.keys() - set(known) - _ADDED_BY_AIRFLOW:
        matches = get_close_matches(name.lower().replace("-", "_"), known, n=1)
        suggestion = f"; did you mean {matches[0]}?" if matches else ""
        yield _Problem(f"only the parameters {', '.join(known)}", f"parameter {name!r}{suggestion}")


def _selection(conf: Mapping[str, Any], name: str, known: Sequence[str]) -> Iterator[_Problem]:
    if name not in conf:
        return
    selected = conf[name]
    expected = f"{name}: a list of one or more of {', '.join(known)}"
    if not isinstance(selected, (list, tuple)) or not selected:
        yield _Problem(expected, f"{name}: {selected!r}")
    elif unknown := [item for item in selected if item not in known]:
        yield _Problem(expected, f"{name}: {', '.join(map(repr, unknown))}")


def _flags(conf: Mapping[str, Any], names: Sequence[str]) -> Iterator[_Problem]:
    for name in names:
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


def _months(conf: Mapping[str, Any], timezone: str, months: dict[str, Period | None]) -> Iterator[_Problem]:
    """The problems of `from` and `to`, which are put into `months`."""
    for name in ("from", "to"):
        months[name] = None
        if not (value := conf.get(name)):
            continue
        try:
            months[name] = Period.parse(str(value).strip(), Cadence.MONTHLY, timezone)
        except PeriodError as error:
            yield _Problem(f"{name}: {error.expected}", f"{name}: {error.actual}")
    first, last = months["from"], months["to"]
    if first and last and first.name > last.name:
        yield _Problem("from: a month that is not after to", f"from: {first.name}, to: {last.name}")
