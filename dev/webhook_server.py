"""A web server that keeps the notifications that are posted to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Listener:
    """A running server and the messages posted to it.

    Attributes:
        port: The port on loopback.
        status: The HTTP status of each answer; a message with another than 200 is not kept.
        messages: The messages, each as Apprise's JSON service sends it: with `title`, `message` and `type`.
    """

    port: int
    status: int = 200
    messages: list[dict[str, Any]] = field(default_factory=list)

    def connection(self, password: str = "") -> str:
        """An Airflow connection that sends notifications to this server, as JSON."""
        login = f"bi:{password}@" if password else ""
        config = {"path": f"json://{login}127.0.0.1:{self.port}"}
        return json.dumps({"conn_type": "apprise", "extra": {"config": config}})

    def about(self, run_id: str) -> list[dict[str, Any]]:
        """The messages about one run."""
        return [message for message in self.messages if f"Run {run_id}:" in message["message"]]


@contextmanager
def listening() -> Iterator[Listener]:
    """Run a server until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if listener.status == HTTPStatus.OK:
                listener.messages.append(message)
            self.send_response(listener.status)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener = Listener(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
