"""A web server that keeps the notifications that are posted to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Listener:
    """A running server and the messages posted to it.

    Attributes:
        port: The port on loopback.
        messages: The messages, each as Apprise's JSON service sends it: with `title`, `message` and `type`.
    """

    port: int
    messages: list[dict[str, Any]] = field(default_factory=list)

    def about(self, run_id: str) -> list[dict[str, Any]]:
        """The messages about one run."""
        return [message for message in self.messages if f"Run {run_id}:" in message["message"]]


@contextmanager
def listening() -> Iterator[Listener]:
    """Run a server until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            listener.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
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
