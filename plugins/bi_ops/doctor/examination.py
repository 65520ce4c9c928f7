"""The whole examination: the settings in force, each region's MEG, and MongoDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bi_ops.connections import open_meg, open_pseudonyms, open_store
from bi_ops.doctor.findings import Finding, Verdict, examine, failure, judged
from bi_ops.doctor.meg import examine_meg
from bi_ops.doctor.mongo import SUBJECT, examine_mongo
from bi_ops.errors import BiError, SourceQueryError
from bi_ops.settings import Settings
from bi_ops.source import Meg

_READER = "bi_doctor"


def examine_all(settings: Settings, regions: Sequence[str]) -> Iterator[Finding]:
    """Examine all that the jobs of these regions need; nothing is written, and of MEG's rows only keys are read.

    Args:
        settings: The settings in force.
        regions: The regions to examine.
    """
    yield from _settings(settings)
    places: dict[tuple[object, ...], str] = {}
    for region in regions:
        with open_meg(region, reader=_READER) as meg:
            findings = list(examine_meg(region, meg, settings.timezone))
            yield from findings
            if findings[0].verdict is Verdict.OK:
                alone = [("a database of its own", partial(_own_place, region, places))]
                yield from examine(f"MEG {region}", alone, meg)
        if region in settings.pseudonymise:
            yield _pseudonyms(region, settings)
    try:
        with open_store(_READER) as store:
            yield from examine_mongo(store, settings)
    except BiError as error:
        yield failure(SUBJECT, "connection", error)


def _settings(settings: Settings) -> Iterator[Finding]:
    cure = "Set BI_AGGREGATE=1 in every Airflow process's environment, and restart them."
    problem = "" if settings.aggregate else "BI_AGGREGATE is off: every run skips its tasks"
    yield judged("settings", "BI_AGGREGATE", problem, fine="on", cure=cure, warn=True)
    for name, field in type(settings).model_fields.items():
        if name == "aggregate":
            continue
        value = getattr(settings, name)
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        default = " (the default)" if value == field.default else ""
        yield Finding("settings", str(field.alias), Verdict.OK, f"{shown or 'off'}{default}")


def _own_place(region: str, places: dict[tuple[object, ...], str], meg: Meg) -> Iterator[Finding]:
    """Whether a region is a database of its own: two that are one would be counted twice."""
    check = "a database of its own"
    try:
        [place] = meg.answer("SELECT system_identifier, current_database() FROM pg_control_system()")
    except SourceQueryError:
        found = "this PostgreSQL does not tell which server it is"
        yield Finding(
            f"MEG {region}", check, Verdict.WARNING, found, f"See that meg_{region} is no other region's MEG."
        )
        return
    other = places.setdefault(place, region)
    problem = "" if other == region else f"the connections meg_{region} and meg_{other} lead to the same database"
    cure = f"Mend the connection meg_{region}: a region's figures are counted twice."
    yield judged(f"MEG {region}", check, problem, fine="yes", cure=cure)


def _pseudonyms(region: str, settings: Settings) -> Finding:
    try:
        open_pseudonyms(region, settings)
    except BiError as error:
        return failure(f"MEG {region}", "pseudonyms", error)
    return Finding(f"MEG {region}", "pseudonyms", Verdict.OK, "a key is there; people's names are replaced")
