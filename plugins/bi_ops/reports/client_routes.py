"""The page's routes of figures: the overview, the clients, one client and the regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Response

from bi_ops.reports.client import Client, client_steps
from bi_ops.reports.clients import Clients, csv_table, list_clients
from bi_ops.reports.csv_text import csv_lines
from bi_ops.reports.filters import Filters
from bi_ops.reports.overview import overview_steps
from bi_ops.reports.query_execution import Steps
from bi_ops.reports.regions import Regions, region_steps
from bi_ops.reports.usage import Usage, usage_steps
from bi_ops.reports.view_tables import ClientTable, RegionTable, client_table, region_table
from bi_ops.reports.web_dependencies import FiltersDep, VersionedReader, VersionedReaderDep, json_response
from bi_ops.settings import Settings

router = APIRouter(prefix="/api")
_MAX_ID = 2**63 - 1
"""MEG's ids and BSON's integers have 64 bits."""
InstitutionId = Annotated[int, Path(ge=-_MAX_ID - 1, le=_MAX_ID)]


async def _read_clients(reader: VersionedReader, filters: Filters) -> tuple[Usage, Clients]:
    """The use of the selected clients, and their table."""

    def steps() -> Steps[tuple[Usage, Clients]]:
        usage = yield from usage_steps(filters, reader.slice_sums)
        return usage, list_clients(usage)

    return await reader.read(steps, "clients", filters)


async def _current_filters(filters: FiltersDep) -> Filters:
    """The filters; without a choice of regions, those of the settings: a removed one would hold every month back."""
    return filters if filters.regions else replace(filters, regions=Settings.from_env().regions)


CurrentFiltersDep = Annotated[Filters, Depends(_current_filters)]


@router.get("/overview")
async def overview(filters: CurrentFiltersDep, reader: VersionedReaderDep) -> Response:
    """The headline figures, and the clients that grow, fade or need attention."""
    usage, table = await _read_clients(reader, filters)
    sums = reader.slice_sums
    return json_response(await reader.read(lambda: overview_steps(filters, usage, table, sums), "overview", filters))


@router.get("/clients")
async def clients(filters: CurrentFiltersDep, reader: VersionedReaderDep) -> Response:
    """All selected clients."""
    _, table = await _read_clients(reader, filters)
    return json_response(table)


@router.get("/clients.csv")
async def clients_csv(filters: CurrentFiltersDep, reader: VersionedReaderDep) -> Response:
    """All selected clients as CSV."""
    _, table = await _read_clients(reader, filters)
    return _csv_response("clients", *csv_table(table))


def _csv_response(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(csv_lines(columns, rows), media_type="text/csv; charset=utf-8", headers=headers)


async def _client(
    client_region: str, institution_id: InstitutionId, filters: CurrentFiltersDep, reader: VersionedReaderDep
) -> Client:
    """One client, among the clients of the selected regions; of its own region where these leave it out."""
    regions = filters.regions if client_region in filters.regions else (client_region,)
    filters = replace(filters, regions=regions, institutions=())
    usage, table = await _read_clients(reader, filters)
    key = (client_region, institution_id)
    row = next((row for row in table.clients if (row.region, row.institution_id) == key), None)
    if row is None:
        raise HTTPException(404, f"region {client_region!r} has no institution {institution_id}")
    sums = reader.slice_sums
    return await reader.read(lambda: client_steps(filters, usage, table, row, sums), "client", key, filters)


ClientDep = Annotated[Client, Depends(_client)]


@router.get("/clients/{client_region}/{institution_id}")
async def client(client: ClientDep) -> Response:
    """One client."""
    return json_response(client)


@router.get("/clients/{client_region}/{institution_id}/{table}.csv")
async def client_csv(institution_id: InstitutionId, table: ClientTable, client: ClientDep) -> Response:
    """A table of one client as CSV."""
    return _csv_response(f"client-{institution_id}-{table}", *client_table(client, table))


async def _regions(filters: CurrentFiltersDep, reader: VersionedReaderDep) -> Regions:
    return await reader.read(lambda: region_steps(filters, reader.slice_sums), "regions", filters)


RegionsDep = Annotated[Regions, Depends(_regions)]


@router.get("/regions")
async def regions(regions: RegionsDep) -> Response:
    """The regions' growth, retention and platforms."""
    return json_response(regions)


@router.get("/regions/{table}.csv")
async def regions_csv(table: RegionTable, regions: RegionsDep) -> Response:
    """A table of the regions as CSV."""
    return _csv_response(f"regions-{table}", *region_table(regions, table))
