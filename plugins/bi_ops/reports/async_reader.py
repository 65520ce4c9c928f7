"""Reads MongoDB for the reports page without blocking the event loop or using the threads of Airflow's API server.

Running tasks call the same server, whose synchronous routes share one small thread pool. So whatever MongoDB does, a
request of the page ends within a time limit and takes none of those threads, and only a few query MongoDB at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError, ConnectionFailure
from pymongo.read_concern import ReadConcern

from bi_ops.errors import (
    ConnectionConfigError,
    MongoConfigurationError,
    MongoUnavailableError,
    ReportsUnavailableError,
)
from bi_ops.mongo.client_settings import MongoClientSettings
from bi_ops.mongo.mongo_error_rules import translate_pymongo_errors
from bi_ops.mongo.store import Document
from bi_ops.reports.circuit_breaker import RETRY_SECONDS, CircuitBreaker
from bi_ops.reports.mwaa import is_mwaa, isolation_error
from bi_ops.reports.query_execution import QUERY_TIMEOUT_MS, Steps, execute_async
from bi_ops.reports.slice_sums import SliceSums

MAX_QUERIES = 8
"""The number of reports that one API server computes at once."""
MAX_CACHED = 64
"""The number of results that are cached, which is those of three choices of filters; the oldest make room."""
REQUEST_SECONDS = 12.0
"""The time limit of one request, whatever it waits for: a frozen server does not keep MongoDB's own time limit."""
_OPTIONS: dict[str, Any] = {
    "serverSelectionTimeoutMS": 2_000,
    "connectTimeoutMS": 2_000,
    "waitQueueTimeoutMS": 2_000,
    "heartbeatFrequencyMS": 2_000,  # a frozen server is noticed after about 4 s, which ends its requests
    "socketTimeoutMS": QUERY_TIMEOUT_MS + 1_000,
    "maxPoolSize": MAX_QUERIES,
}
"""The page's own limits; those in the connection's extra apply to the pipeline, which may wait longer."""

T = TypeVar("T")
GetClientSettings = Callable[[], MongoClientSettings]


@dataclass(frozen=True)
class _Connection:
    settings: MongoClientSettings
    client: AsyncMongoClient[Document] = field(repr=False)

    @property
    def database(self) -> AsyncDatabase[Document]:
        return self.client.get_database(
            self.settings.database,
            codec_options=CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
        )


class _Cached(NamedTuple):
    version: Hashable
    expires: float
    result: Any


class AsyncReader:
    """The page's connection within one event loop, opened once, since opening costs more than a report.

    Args:
        get_client_settings: Returns the connection's settings; it may block.
    """

    def __init__(self, get_client_settings: GetClientSettings) -> None:
        self._get_settings = get_client_settings
        self._breaker = CircuitBreaker()
        self._free_slots = MAX_QUERIES
        self._connection: _Connection | None = None
        self._stale = True
        self._opening: asyncio.Future[_Connection] | None = None
        self.slice_sums = SliceSums()
        """What the reports keep of this database."""
        self._cache: dict[Hashable, _Cached] = {}
        self._computing: dict[Any, asyncio.Task[Any]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def read(self, steps: Steps[T], deadline: float) -> T:
        """Run the steps.

        Args:
            steps: The queries.
            deadline: The end of the time limit, by the monotonic clock.

        Raises:
            ReportsUnavailableError: Too many reports are being computed, or MongoDB is down or does not answer.
            MongoUnavailableError: MongoDB cannot be reached.
            ConnectionConfigError: The connection cannot be used; once it is corrected, the next request uses it.
            MongoConfigurationError: The account may not read.
        """
        with self._slot():
            try:
                return await self._read_admitted(steps, deadline)
            except MongoUnavailableError as error:
                if is_mwaa() and not self._breaker.has_succeeded:
                    raise isolation_error(error) from error
                raise

    async def _read_admitted(self, steps: Steps[T], deadline: float) -> T:
        with self._breaker.admission():
            connection = await self._open(deadline)
            try:
                with translate_pymongo_errors(f"the reports, connection {connection.settings.conn_id}"):
                    return await self._execute(connection, steps, deadline)
            except (ConnectionConfigError, MongoConfigurationError, MongoUnavailableError):
                self._stale = True
                raise

    async def read_cached(
        self,
        make_steps: Callable[[], Steps[T]],
        deadline: float,
        seconds: float,
        key: Hashable = None,
        version: Hashable = None,
    ) -> T:
        """The cached result of the steps, or their result now if it is too old or of another version.

        Requests for the same result share one computation, its time limit and its error.

        Args:
            make_steps: Makes the queries.
            deadline: The end of the time limit, by the monotonic clock.
            seconds: How long a result is cached.
            key: What identifies the result, such as the filters; by default `make_steps` itself.
            version: The version of what is read; a result replaces that of another version.

        Raises:
            ReportsUnavailableError: The time limit has ended; and what `read` raises.
        """
        key = make_steps if key is None else key
        cached = self._cache.get(key)
        if cached and cached.version == version and time.monotonic() < cached.expires:
            hit: T = cached.result
            return hit
        computation = key, version
        if computation not in self._computing:
            steps = self._compute(make_steps, deadline, seconds, *computation)
            task = asyncio.get_running_loop().create_task(steps)
            self._computing[computation] = task
            task.add_done_callback(partial(self._forget, computation))
        try:
            # Shielded: a request that ends must not cancel the computation for the others.
            computed = asyncio.shield(self._computing[computation])
            result: T = await asyncio.wait_for(computed, deadline - time.monotonic())
        except asyncio.TimeoutError:
            raise _timeout_error("the reports") from None
        return result

    async def _compute(
        self, make_steps: Callable[[], Steps[T]], deadline: float, seconds: float, key: Hashable, version: Hashable
    ) -> T:
        result = await self.read(make_steps(), deadline)
        self._cache.pop(key, None)
        while len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = _Cached(version, time.monotonic() + seconds, result)
        return result

    def _forget(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._computing[key]
        if not task.cancelled():
            task.exception()  # else asyncio logs an error that no request waits for any longer

    async def database_name(self, deadline: float) -> str:
        """The name of the live database, from the connection's settings, without a query."""
        return (await self._open(deadline)).settings.database

    async def close(self) -> None:
        """Close the connection."""
        if self._connection:
            await self._connection.client.close()
            self._connection, self._stale = None, True

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._free_slots:
            raise ReportsUnavailableError(
                "too many reports at once",
                retry_after=1,
                context="the reports",
                expected=f"at most {MAX_QUERIES} at once",
                hint="Retried automatically. If it persists, reload the page later.",
            )
        self._free_slots -= 1
        try:
            yield
        finally:
            self._free_slots += 1

    async def _execute(self, connection: _Connection, steps: Steps[T], deadline: float) -> T:
        try:
            result = await asyncio.wait_for(execute_async(connection.database, steps), deadline - time.monotonic())
        except ConnectionFailure:
            self._breaker.record_failure()
            raise
        except asyncio.TimeoutError:
            self._breaker.record_failure()
            raise _timeout_error(f"the reports, connection {connection.settings.conn_id}") from None
        self._breaker.record_success()
        return result

    async def _open(self, deadline: float) -> _Connection:
        """The connection; its settings are read again after a failure, since they may have been corrected."""
        if self._connection and not self._stale:
            return self._connection
        if self._opening is None:
            loop = asyncio.get_running_loop()
            self._opening = loop.run_in_executor(_EXECUTOR, _open_connection, self._get_settings, self._connection)
        opening = self._opening
        try:
            # Shielded: requests share one look-up, and a request that times out must not cancel it for the others.
            connection = await asyncio.wait_for(asyncio.shield(opening), deadline - time.monotonic())
        except asyncio.TimeoutError:
            raise ReportsUnavailableError(
                "Airflow did not return the connection in time",
                retry_after=RETRY_SECONDS,
                context="the reports",
                expected=f"an answer within {REQUEST_SECONDS:g} s",
                hint="Retried automatically. If it persists, check Airflow's secrets backend and metadata database.",
            ) from None
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None
        self._use(connection)
        return connection

    def _use(self, connection: _Connection) -> None:
        if self._connection is not connection:
            if self._connection:
                task = asyncio.get_running_loop().create_task(_close_later(self._connection.client))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            self._connection, self.slice_sums = connection, SliceSums()
        self._stale = False


def _timeout_error(context: str) -> ReportsUnavailableError:
    return ReportsUnavailableError(
        "MongoDB did not answer in time",
        retry_after=RETRY_SECONDS,
        context=context,
        expected=f"an answer within {REQUEST_SECONDS:g} s",
        hint="Retried automatically. If it persists, check that MongoDB is up and not overloaded.",
    )


async def _close_later(client: AsyncMongoClient[Document]) -> None:
    """Close a replaced client once no request can still be using it."""
    await asyncio.sleep(REQUEST_SECONDS)
    await client.close()


_EXECUTOR = ThreadPoolExecutor(1, thread_name_prefix="bi-reports")
"""A separate thread for blocking calls: Airflow's secrets backends, its metadata database, certificate files."""


def _open_connection(get_client_settings: GetClientSettings, current: _Connection | None) -> _Connection:
    """Open the connection as configured now; the current one if nothing has changed."""
    settings = get_client_settings()
    if current and settings == current.settings:
        return current
    limits = {option.lower() for option in _OPTIONS}
    options = {option: value for option, value in settings.options.items() if option.lower() not in limits} | _OPTIONS
    with translate_pymongo_errors(f"the reports, connection {settings.conn_id}"):
        try:
            client: AsyncMongoClient[Document] = AsyncMongoClient(settings.uri, **options)
        except (TypeError, ValueError, OSError) as error:  # a wrong value, a missing file of certificates
            raise ConfigurationError(f"{type(error).__name__}: {error}") from None
    return _Connection(settings, client)


_READERS: dict[asyncio.AbstractEventLoop, AsyncReader] = {}
_READERS_LOCK = threading.Lock()


def current_reader(get_client_settings: GetClientSettings) -> AsyncReader:
    """The running event loop's reader: an asynchronous client works in one loop only.

    Args:
        get_client_settings: Returns the settings of a new reader's connection.
    """
    with _READERS_LOCK:
        for loop in [loop for loop in _READERS if loop.is_closed()]:
            del _READERS[loop]
        return _READERS.setdefault(asyncio.get_running_loop(), AsyncReader(get_client_settings))


async def close_current_reader() -> None:
    """Close the running event loop's reader, if it has one."""
    with _READERS_LOCK:
        reader = _READERS.pop(asyncio.get_running_loop(), None)
    if reader:
        with suppress(Exception):  # the process is ending, and MongoDB may be down
            await asyncio.wait_for(reader.close(), 1)
