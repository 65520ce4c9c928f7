"""A mail server that keeps the messages that are sent to it."""

from __future__ import annotations

import email
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from socketserver import StreamRequestHandler, ThreadingTCPServer


@dataclass
class MailServer:
    """A running SMTP server without encryption.

    Attributes:
        port: The port on loopback.
        messages: The messages that it took.
    """

    port: int
    messages: list[EmailMessage] = field(default_factory=list)

    def url(self, **options: str) -> str:
        """The URL with which Apprise sends mail to this server."""
        extra = "".join(f"&{name}={value}" for name, value in options.items())
        return f"mailto://127.0.0.1:{self.port}/?from=bi@example.com&to=team@example.com&mode=insecure{extra}"


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """Run a server until the block ends."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self._reply("220 ready")
            while command := self.rfile.readline().decode().strip().upper():
                if command == "DATA":
                    self._reply("354 go on")
                    received.messages.append(self._read_message())
                self._reply("221 bye" if command == "QUIT" else "250 ok")
                if command == "QUIT":
                    return

        def _read_message(self) -> EmailMessage:
            lines = iter(self.rfile.readline, b".\r\n")
            return email.message_from_bytes(b"".join(line.removeprefix(b".") for line in lines), policy=default)

        def _reply(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        received = MailServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
