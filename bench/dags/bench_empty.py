"""200 mapped tasks that do nothing: what Airflow itself costs. `bi_monthly` beside it is the package's own."""

from typing import Any

import pendulum
from airflow.sdk import dag, task


@dag(schedule=None, start_date=pendulum.datetime(2020, 1, 1), params={"tasks": 200})
def bench_empty() -> None:
    """As many tasks as the parameter says."""

    @task
    def listed(**context: Any) -> list[int]:
        return [*range(context["params"]["tasks"])]

    @task
    def nothing(number: int) -> None:
        """And returns nothing: a result is another call of the API."""

    nothing.expand(number=listed())


bench_empty()
