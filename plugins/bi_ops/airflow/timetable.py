"""The schedule of each cadence, which puts the period of a run into its id."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.timetables.base import DataInterval, Timetable
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.utils.types import DagRunType
from typing_extensions import override

from bi_ops.catalog.periods import Cadence, Period

_CRON = {Cadence.MONTHLY: "0 0 1 * *", Cadence.QUARTERLY: "0 0 1 1,4,7,10 *", Cadence.WEEKLY: "0 0 * * 6"}


class PeriodTimetable(CronDataIntervalTimetable):
    """A cadence's cron schedule, with run ids such as `scheduled__2026-10__2026-11-01T00:00:00+00:00`.

    Airflow stores it by its import path, so every process of Airflow that reads the DAGs loads it from the plugin.

    Args:
        cadence: The cadence.
        timezone: The name of the time zone in which periods are cut.
    """

    def __init__(self, cadence: Cadence, timezone: str) -> None:
        super().__init__(_CRON[cadence], timezone=timezone)
        self._cadence = cadence
        self._zone = timezone

    @override
    def serialize(self) -> dict[str, Any]:
        return {"cadence": self._cadence.value, "timezone": self._zone}

    @classmethod
    @override
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        return cls(Cadence(data["cadence"]), data["timezone"])

    @override
    def generate_run_id(
        self,
        *,
        run_type: DagRunType,
        run_after: pendulum.DateTime,
        data_interval: DataInterval | None,
        **extra: Any,
    ) -> str:
        """Airflow's own id, for a scheduled run with its period or, if weekly, its date after the run type.

        A manual run keeps Airflow's id: it loads the period of its `period` parameter, which is not passed. So does a
        run of Airflow's backfill, which does not call this method.
        """
        run_id = super().generate_run_id(run_type=run_type, run_after=run_after, data_interval=data_interval, **extra)
        if run_type is not DagRunType.SCHEDULED or data_interval is None:
            return run_id
        prefix, _, suffix = run_id.partition("__")
        return f"{prefix}__{self._period_label(data_interval)}__{suffix}"

    def _period_label(self, interval: DataInterval) -> str:
        if self._cadence is Cadence.WEEKLY:
            return interval.end.in_timezone(self._zone).to_date_string()  # in 3.0, run_after is the interval's start
        middle = interval.start + (interval.end - interval.start) / 2  # as the run's tasks determine the period
        return Period.containing(middle, self._cadence, self._zone).name
