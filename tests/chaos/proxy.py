"""A TCP proxy on loopback that can be slow, silent or cut."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Proxy:
    """Forwards connections to a port, with the faults that are switched on.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, target: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = 0
        self._target = target
        self._loop = loop
        self._delay = 0.0
        self._passing = asyncio.Event()
        self._refusing = False
        self._open: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        self._passing.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def slow(self, seconds: float) -> None:
        """Hold back whatever passes for so long."""
        self._delay = seconds

    def silent(self) -> None:
        """Take what comes and pass nothing on."""
        self._call(self._passing.clear)

    def cut(self) -> None:
        """Break every connection, and take no new one."""
        self._refusing = True
        self._call(self._break)

    def reset_connections(self) -> None:
        """Break every connection, and take new ones."""
        self._call(self._break)

    def restore(self) -> None:
        self._delay, self._refusing = 0.0, False
        self._call(self._passing.set)

    def _call(self, func: Callable[[], object]) -> None:
        called = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (func(), called.set()))
        called.wait()

    def _break(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._open |= ends
        try:
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                await asyncio.sleep(self._delay)
                await self._passing.wait()
                target.write(data)
                await target.drain()
        target.transport.abort()


@contextmanager
def proxies(*targets: int) -> Iterator[list[Proxy]]:
    """A proxy for each port, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

    opened = []
    for target in targets:
        proxy = Proxy(target, loop)
        run(proxy.listen())
        opened.append(proxy)
    try:
        yield opened
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
