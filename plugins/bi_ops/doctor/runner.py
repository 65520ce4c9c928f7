"""The whole examination: the settings in force, each region's MEG, and MongoDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

from bi_ops.doctor.meg_checks import check_meg
from bi_ops.doctor.mongo_checks import MONGO_SUBJECT, check_mongo
from bi_ops.doctor.results import Finding, Status, check_result, failed_check, run_checks
from bi_ops.errors import BiError, SourceQueryError
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.store import Store
from bi_ops.settings import Settings

_READER = "bi_doctor"


class Connections(Protocol):
    """Opens what the doctor examines; the module `bi_ops.airflow.connections` does."""

    def open_meg(self, region: str, *, application_name: str) -> MegReader:
        """A region's MEG."""

    def open_store(self, context: str) -> AbstractContextManager[Store]:
        """The databases of MongoDB."""

    def load_pseudonymizer(self, region: str, settings: Settings) -> object:
        """What replaces the names of a region's people."""


def run_all_checks(settings: Settings, regions: Sequence[str], connections: Connections) -> Iterator[Finding]:
    """Examine all that the jobs of these regions need; nothing is written, and of MEG's rows only keys are read.

    Args:
        settings: The settings in force.
        regions: The regions to examine.
        connections: Opens MEG and MongoDB.
    """
    yield from _settings(settings)
    places: dict[tuple[object, ...], str] = {}
    for region in regions:
        with connections.open_meg(region, application_name=_READER) as meg:
            findings = list(check_meg(region, meg, settings.timezone))
            yield from findings
            if findings[0].status is Status.OK:
                alone = [("a database of its own", partial(_check_distinct_database, region, places))]
                yield from run_checks(f"MEG {region}", alone, meg)
        if region in settings.pseudonymise:
            yield _pseudonyms(region, settings, connections)
    try:
        with connections.open_store(_READER) as store:
            yield from check_mongo(store, settings)
    except BiError as error:
        yield failed_check(MONGO_SUBJECT, "connection", error)


def _settings(settings: Settings) -> Iterator[Finding]:
    hint = "Set BI_AGGREGATE=1 in every Airflow process's environment, and restart them."
    problem = "" if settings.aggregate else "BI_AGGREGATE is off: every run skips its tasks"
    yield check_result("settings", "BI_AGGREGATE", problem, ok_message="on", hint=hint, warn_only=True)
    for name, field in type(settings).model_fields.items():
        if name == "aggregate":
            continue
        value = getattr(settings, name)
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        default = " (the default)" if value == field.default else ""
        yield Finding("settings", str(field.alias), Status.OK, f"{shown or 'off'}{default}")


def _check_distinct_database(region: str, places: dict[tuple[object, ...], str], meg: MegReader) -> Iterator[Finding]:
    """Whether a region is a database of its own: two that are one would be counted twice."""
    check = "a database of its own"
    try:
        [place] = meg.fetch_all("SELECT system_identifier, current_database() FROM pg_control_system()")
    except SourceQueryError:
        found = "this PostgreSQL does not identify itself"
        yield Finding(f"MEG {region}", check, Status.WARNING, found, f"See that meg_{region} is no other region's MEG.")
        return
    other = places.setdefault(place, region)
    problem = "" if other == region else f"the connections meg_{region} and meg_{other} lead to the same database"
    hint = f"Correct the connection meg_{region}: a region's figures are counted twice."
    yield check_result(f"MEG {region}", check, problem, ok_message="yes", hint=hint)


def _pseudonyms(region: str, settings: Settings, connections: Connections) -> Finding:
    try:
        connections.load_pseudonymizer(region, settings)
    except BiError as error:
        return failed_check(f"MEG {region}", "pseudonyms", error)
    return Finding(f"MEG {region}", "pseudonyms", Status.OK, "a key is there; people's names are replaced")
