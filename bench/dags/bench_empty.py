"""200 mapped tasks that do nothing, to measure Airflow's own cost."""

from typing import Any

import pendulum
from airflow.sdk import dag, task


@dag(schedule=None, start_date=pendulum.datetime(2020, 1, 1), params={"tasks": 200})
def bench_empty() -> None:
    """Map as many empty tasks as the parameter `tasks` says."""

    @task
    def list_numbers(**context: Any) -> list[int]:
        return [*range(context["params"]["tasks"])]

    @task
    def do_nothing(number: int) -> None:
        """Return nothing: a result would cost another call of the API."""

    do_nothing.expand(number=list_numbers())


bench_empty()
