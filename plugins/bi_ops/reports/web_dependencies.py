"""What the page's routes share: the reader of a request, the filters of its address, and JSON responses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, is_dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, HTTPException, Query, Request, Response

from bi_ops.reports.async_reader import REQUEST_SECONDS, AsyncReader, current_reader
from bi_ops.reports.filters import Filters
from bi_ops.reports.query_execution import Steps
from bi_ops.reports.report_queries import filter_option_steps
from bi_ops.reports.slice_sums import CACHE_SECONDS, SliceSums
from bi_ops.reports.usage import ledger_version_steps

_MAX_VALUES = 200
FilterValues = Annotated[list[str], Query(default_factory=list, max_length=_MAX_VALUES)]
_FILTER_PARAMS = {"region", "institution", "form_type", "from_month", "to_month"}
T = TypeVar("T")


@dataclass(frozen=True)
class RequestReader:
    """Reads MongoDB for one request, within one time limit.

    Attributes:
        shared: The event loop's reader.
        deadline: When the time limit ends, by the monotonic clock.
    """

    shared: AsyncReader
    deadline: float

    async def run(self, steps: Steps[T]) -> T:
        """Run the queries and return their result."""
        return await self.shared.read(steps, self.deadline)

    async def run_cached(
        self, make_steps: Callable[[], Steps[T]], seconds: float, key: Hashable, version: Hashable
    ) -> T:
        """The result of the queries, cached for some seconds by `key` until the version changes."""
        return await self.shared.read_cached(make_steps, self.deadline, seconds, key, version)

    async def database_name(self) -> str:
        """The name of the live database."""
        return await self.shared.database_name(self.deadline)


async def _request_reader(request: Request) -> RequestReader:
    return RequestReader(current_reader(request.app.state.get_client_settings), time.monotonic() + REQUEST_SECONDS)


ReaderDep = Annotated[RequestReader, Depends(_request_reader)]


@dataclass(frozen=True)
class VersionedReader:
    """Reads what changes only with a publish, computed once for each.

    Attributes:
        reader: The request's reader.
        version: The ledger's version before anything is read: what is cached by it is never older.
    """

    reader: RequestReader
    version: Hashable

    async def read(self, make_steps: Callable[[], Steps[T]], *key: Hashable) -> T:
        """The result of the queries, cached by `key`, such as the view and its filters, and by the ledger's version."""
        return await self.reader.run_cached(make_steps, CACHE_SECONDS, key, self.version)

    @property
    def slice_sums(self) -> SliceSums:
        """The sums of slices that were read before."""
        return self.reader.shared.slice_sums

    async def filter_options(self) -> Mapping[str, list[str]]:
        """The values of each filter."""
        return await self.read(lambda: filter_option_steps(self.slice_sums), "filter options")


async def _versioned_reader(reader: ReaderDep) -> VersionedReader:
    return VersionedReader(reader, await reader.run(ledger_version_steps()))


VersionedReaderDep = Annotated[VersionedReader, Depends(_versioned_reader)]


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encode directly: FastAPI's encoder inspects each value first and blocks the event loop ten times as long."""
    text = json.dumps(content, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")


def _plain(value: Any) -> Any:
    """What JSON has no type for: the dataclasses of the figures, and instants, in ISO 8601."""
    if is_dataclass(value):
        return vars(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def _filters(
    request: Request,
    reader: VersionedReaderDep,
    *,
    region: FilterValues,
    institution: FilterValues,
    form_type: FilterValues,
    from_month: str = "",
    to_month: str = "",
) -> Filters:
    """The filters of the query string, with names and values checked."""
    unknown = set(request.query_params) - _FILTER_PARAMS
    if unknown:
        raise HTTPException(
            422, f"unknown filter {sorted(unknown)[0]!r}. Expected: one of {', '.join(sorted(_FILTER_PARAMS))}."
        )
    selected = {"region": region, "institution": institution, "form_type": form_type}
    if any(selected.values()):
        options = await reader.filter_options()
        for name, values in selected.items():
            if unknown_values := set(values) - set(options[name]):
                raise HTTPException(422, f"unknown {name.replace('_', ' ')} {sorted(unknown_values)[0]!r}")
    return Filters(tuple(region), tuple(institution), tuple(form_type), from_month, to_month)


FiltersDep = Annotated[Filters, Depends(_filters)]
