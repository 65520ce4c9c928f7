"""A load in a process of its own that kills itself, hard, at the n-th command to MongoDB.

`python -m tests.loader STEP KILL_AT`, with the connections in the environment as Airflow has them. STEP is `stage` or
`publish`; KILL_AT is the number of the command at which the process dies, 0 for never.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import psycopg
from pymongo import MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from bi_ops.publish import publish
from bi_ops.source import Meg
from bi_ops.store import Store
from tests.loads import load_of, month, stage_slice

BEFORE, AFTER = "before", "after"


class Killer(CommandListener):
    """Kills the process when a command is sent or answered."""

    def __init__(self, at: int, moment: str) -> None:
        self._left = at
        self._moment = moment

    def started(self, _event: CommandStartedEvent) -> None:
        if self._moment == BEFORE:
            self._count()

    def succeeded(self, _event: CommandSucceededEvent) -> None:
        if self._moment == AFTER:
            self._count()

    def failed(self, _event: CommandFailedEvent) -> None:
        pass

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    step, kill_at, moment, range_size = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    meg_fields, mongo_fields = (json.loads(os.environ[f"AIRFLOW_CONN_{name}"]) for name in ("MEG_EU", "BI_MONGO"))

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=meg_fields["host"],
            port=meg_fields["port"],
            dbname=meg_fields["schema"],
            user=meg_fields["login"],
            password=meg_fields["password"],
        )

    client: MongoClient[dict[str, object]] = MongoClient(
        mongo_fields["host"],
        mongo_fields["port"],
        username=mongo_fields["login"],
        password=mongo_fields["password"],
        event_listeners=[Killer(kill_at, moment)],
        **mongo_fields["extra"],
    )
    store = Store(client, mongo_fields["schema"])
    if step == "stage":
        with Meg("eu", connect, reader="test") as meg:
            load = stage_slice(store, meg, month())
        print(load.documents)
    else:
        load = load_of(month(), int(sys.argv[5]))
        publish(store, load, max_shrink=0.5, transaction_documents=range_size)


if __name__ == "__main__":
    main()
