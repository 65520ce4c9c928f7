"""Reads and validates the settings, which all come from environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

import pendulum
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from bi_ops.errors import SettingsError

_REGION = re.compile(r"[a-z][a-z0-9_]*")
_TRUE_WORDS = {"1", "true", "yes", "on"}
_FALSE_WORDS = {"0", "false", "no", "off"}


def to_bool(value: Any) -> bool:
    """Whether a value is one of `1`, `true`, `yes` and `on`, in any case."""
    return str(value).strip().lower() in _TRUE_WORDS


def _regions(value: Any) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)
    if not all(_REGION.fullmatch(name) for name in names):
        raise PydanticCustomError("region", "comma-separated region names, each matching [a-z][a-z0-9_]*")
    if set(names) & (_TRUE_WORDS | _FALSE_WORDS):
        raise PydanticCustomError("region", "region names other than the reserved boolean words, such as no")
    if len(set(names)) < len(names):
        raise PydanticCustomError("region", "distinct region names")
    return names


def _region_subset(value: Any, info: ValidationInfo) -> tuple[str, ...]:
    if not isinstance(value, str):
        return tuple(value)
    word = value.strip().lower()
    all_regions: tuple[str, ...] = info.data.get("regions", ())
    if word in _TRUE_WORDS | _FALSE_WORDS:
        return all_regions if word in _TRUE_WORDS else ()
    names = tuple(name.strip() for name in value.split(","))
    if not set(names) <= set(all_regions):
        raise PydanticCustomError("region", "on, off, or comma-separated regions of MEG_REGIONS")
    return names


def _timezone(value: str) -> str:
    try:
        pendulum.timezone(value)
    except (ValueError, KeyError, OSError) as error:  # which one depends on pendulum's version
        raise PydanticCustomError("timezone", "the name of an IANA time zone, such as Europe/Dublin") from error
    return value


def _date(value: Any) -> date:
    try:
        return value if isinstance(value, date) else date.fromisoformat(value)
    except ValueError as error:
        raise PydanticCustomError("date", "a date such as 2026-01-01") from error


class Settings(BaseModel):
    """The settings, with their defaults.

    Attributes:
        aggregate: Whether the jobs run: `1`, `true`, `yes` or `on`; any other value skips them.
        regions: The MEG servers to read; region `eu` is reached through the connection `meg_eu`.
        timezone: Where months, quarters and the schedule's midnight lie (IANA name).
        start_date: The first day that catchup covers.
        forms_per_chunk: The number of forms in a chunk.
        max_mapped_tasks: The most stage tasks of one job and region; beyond it a task reads several chunks in turn.
        max_parallel_chunks: The most stage tasks at once, per job and region: the cap on parallel queries on one MEG.
        max_shrink: The share of a slice that a publish may remove without `force`, 0 to 1.
        pseudonymise: The regions in which users' names are replaced.
        settle_minutes: How long after a period's end a load waits before it reads MEG.
        self_heal: Whether `bi_backfill` loads every day what is missing.
        max_heal_periods: The most periods that it then loads a day.
        deadline_hours: How long after they were due slices are late if they are not published.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    aggregate: Annotated[bool, BeforeValidator(to_bool)] = Field(False, alias="BI_AGGREGATE")
    regions: Annotated[tuple[str, ...], BeforeValidator(_regions)] = Field(("local",), alias="MEG_REGIONS")
    timezone: Annotated[str, AfterValidator(_timezone)] = Field("UTC", alias="BI_TIMEZONE")
    start_date: Annotated[date, BeforeValidator(_date)] = Field(date(2026, 1, 1), alias="BI_START_DATE")
    forms_per_chunk: int = Field(10, alias="BI_FORMS_PER_CHUNK", ge=1, le=1000)
    max_mapped_tasks: int = Field(32, alias="BI_MAX_MAPPED_TASKS", ge=1, le=1024)
    max_parallel_chunks: int = Field(8, alias="BI_MAX_PARALLEL_CHUNKS", ge=1, le=128)
    max_shrink: float = Field(0.5, alias="BI_MAX_SHRINK", ge=0, le=1)
    pseudonymise: Annotated[tuple[str, ...], BeforeValidator(_region_subset)] = Field((), alias="BI_PSEUDONYMISE")
    settle_minutes: float = Field(5, alias="BI_SETTLE_MINUTES", ge=0, le=24 * 60)
    self_heal: Annotated[bool, BeforeValidator(to_bool)] = Field(False, alias="BI_SELF_HEAL")
    max_heal_periods: int = Field(3, alias="BI_MAX_HEAL_PERIODS", ge=1, le=100)
    deadline_hours: float = Field(24, alias="BI_DEADLINE_HOURS", gt=0, le=24 * 28)

    @property
    def start_datetime(self) -> pendulum.DateTime:
        """Midnight at the beginning of the start date, in the settings' time zone."""
        return pendulum.datetime(*self.start_date.timetuple()[:3], tz=self.timezone)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `env`, by default the process environment; an empty value counts as unset.

        Raises:
            SettingsError: A value is not allowed; the message names the variable, the value and the allowed values.
        """
        env = os.environ if env is None else env
        names = (field.alias for field in cls.model_fields.values() if field.alias)
        try:
            return cls.model_validate({name: env[name] for name in names if env.get(name)})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise SettingsError(
                "invalid setting",
                context=f"environment variable {problem['loc'][0]}",
                expected=problem["msg"].removeprefix("Input should be ").removeprefix("Value error, "),
                actual=repr(problem["input"]),
                hint="Correct the variable, then restart Airflow's processes.",
            ) from None
