"""Runs every check: of Airflow, of the settings in force, of each region's MEG, and of MongoDB."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

from bi_ops.doctor.deployment_checks import AirflowFacts, check_deployment
from bi_ops.doctor.meg_checks import check_meg
from bi_ops.doctor.mongo_checks import MONGO_SUBJECT, check_mongo
from bi_ops.doctor.results import Finding, Status, check_result, failed_check, run_checks
from bi_ops.errors import BiError, SourceQueryError
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings

_READER = "bi_doctor"
_DISTINCT = "distinct database"
_MEG_CONNECTION = "AIRFLOW_CONN_MEG_"
"""How the environment variable of a region's connection starts."""


class Connections(Protocol):
    """Opens the databases that the doctor checks; the module `bi_ops.airflow.connections` does."""

    def open_meg(self, region: str, *, application_name: str) -> MegReader:
        """A region's MEG."""

    def open_store(self, context: str) -> AbstractContextManager[Store]:
        """The databases of MongoDB."""

    def load_pseudonymizer(self, region: str, settings: Settings) -> object:
        """The function that replaces the names of a region's people, or None."""


def run_all_checks(
    settings: Settings, regions: Sequence[str], connections: Connections, facts: AirflowFacts
) -> Iterator[Finding]:
    """Check everything that the jobs of these regions need; writes nothing, and reads only keys of MEG's rows.

    Args:
        settings: The settings in force.
        regions: The regions to check.
        connections: Opens MEG and MongoDB.
        facts: What Airflow says of itself.
    """
    yield from check_deployment(facts, os.environ)
    yield from _settings(settings)
    yield _unlisted_connections(settings)
    databases: dict[tuple[object, ...], str] = {}
    for region in regions:
        with connections.open_meg(region, application_name=_READER) as meg:
            findings = list(check_meg(region, meg, settings.timezone))
            yield from findings
            if findings[0].status is Status.OK:
                distinct = [(_DISTINCT, partial(_check_distinct_database, region, databases))]
                yield from run_checks(f"MEG {region}", distinct, meg)
        if region in settings.pseudonymise:
            yield _pseudonyms(region, settings, connections)
    try:
        with connections.open_store(_READER) as store:
            yield from check_mongo(store, settings)
    except BiError as error:
        yield failed_check(MONGO_SUBJECT, "connection", error)


def _settings(settings: Settings) -> Iterator[Finding]:
    yield check_result(
        "settings",
        "BI_AGGREGATE",
        "" if settings.aggregate else "BI_AGGREGATE is off, so every run skips its tasks",
        ok_message="on",
        expected="BI_AGGREGATE=1",
        hint="Set BI_AGGREGATE=1 in the environment of every Airflow process, and restart them.",
        warn_only=True,
    )
    for name, field in type(settings).model_fields.items():
        if name == "aggregate":
            continue
        value = getattr(settings, name)
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        default = " (the default)" if value == field.default else ""
        yield Finding("settings", str(field.alias), Status.OK, f"{shown or 'off'}{default}")


def _unlisted_connections(settings: Settings) -> Finding:
    """Whether each region with a connection is in the settings.

    Only connections in environment variables can be listed: Airflow reads its database and the secrets backends by id.
    """
    names = (name for name in os.environ if name.startswith(_MEG_CONNECTION))
    regions = {name.removeprefix(_MEG_CONNECTION).lower() for name in names} - {*settings.regions}
    unlisted = ", ".join(f"meg_{region}" for region in sorted(regions))
    return check_result(
        "settings",
        "unlisted connections",
        f"connections of regions that MEG_REGIONS does not list, so they are not loaded: {unlisted}"
        if unlisted
        else "",
        ok_message="none in the environment",
        expected="each region with a connection is in MEG_REGIONS",
        actual=f"MEG_REGIONS={','.join(settings.regions)}",
        hint="Add the region to MEG_REGIONS, or remove its connection.",
        warn_only=True,
    )


def _check_distinct_database(
    region: str, databases: dict[tuple[object, ...], str], meg: MegReader
) -> Iterator[Finding]:
    """Whether no two regions lead to the same database, which would be counted twice."""
    try:
        [database] = meg.fetch_all("SELECT system_identifier, current_database() FROM pg_control_system()")
    except SourceQueryError:
        yield Finding(
            f"MEG {region}",
            _DISTINCT,
            Status.WARNING,
            "not checked",
            expected="a role that may call pg_control_system(), which identifies the server",
            actual="permission denied",
            hint=f"Make sure that meg_{region} does not lead to another region's MEG.",
        )
        return
    other = databases.setdefault(database, region)
    yield check_result(
        f"MEG {region}",
        _DISTINCT,
        "" if other == region else f"the connections meg_{region} and meg_{other} lead to the same database",
        ok_message="not the database of another region",
        expected="one database for each region; else its figures are counted twice",
        hint=f"Correct the connection meg_{region}.",
    )


def _pseudonyms(region: str, settings: Settings, connections: Connections) -> Finding:
    try:
        connections.load_pseudonymizer(region, settings)
    except BiError as error:
        return failed_check(f"MEG {region}", "pseudonym key", error)
    return Finding(f"MEG {region}", "pseudonym key", Status.OK, "present; names of people are replaced")
