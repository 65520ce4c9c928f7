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
        port: The port on which it listens.
    """

    def __init__(self, target: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = 0
        self._target = target
        self._loop = loop
        self._delay = 0.0
        self._forwarding = asyncio.Event()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        self._forwarding.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def slow(self, seconds: float) -> None:
        """Delay all data by this many seconds."""
        self._delay = seconds

    def silent(self) -> None:
        """Accept data and forward none."""
        self._call(self._forwarding.clear)

    def cut(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._refusing = True
        self._call(self._reset)

    def reset_connections(self) -> None:
        """Reset every connection, and accept new ones."""
        self._call(self._reset)

    def restore(self) -> None:
        """End every fault."""
        self._delay, self._refusing = 0.0, False
        self._call(self._forwarding.set)

    def _call(self, func: Callable[[], object]) -> None:
        finished = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (func(), finished.set()))
        finished.wait()

    def _reset(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, target_writer}
        self._writers |= pair
        try:
            await asyncio.gather(self._forward(reader, target_writer), self._forward(target_reader, writer))
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                await asyncio.sleep(self._delay)
                await self._forwarding.wait()
                target.write(data)
                await target.drain()
        target.transport.abort()


@contextmanager
def proxies(*targets: int) -> Iterator[list[Proxy]]:
    """Run a proxy for each port until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

    started = []
    for target in targets:
        proxy = Proxy(target, loop)
        run(proxy.listen())
        started.append(proxy)
    try:
        yield started
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
