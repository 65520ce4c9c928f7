"""The tasks of a month of one job and region, which do nothing: a gate, a plan, mapped stage tasks and a publish."""

from typing import Any

import pendulum
from airflow.sdk import dag, task


@dag(schedule=None, start_date=pendulum.datetime(2020, 1, 1), params={"tasks": 30})
def bench_empty_shape() -> None:
    """Map as many empty tasks as the parameter `tasks` says, between empty tasks."""

    @task.short_circuit
    def gate() -> bool:
        return True

    @task
    def plan(**context: Any) -> list[int]:
        return [*range(context["params"]["tasks"])]

    @task
    def stage(number: int) -> int:
        return number

    @task
    def publish() -> None:
        """Return nothing."""

    planned = plan()
    gate() >> planned
    stage.expand(number=planned) >> publish()


bench_empty_shape()
