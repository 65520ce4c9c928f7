"""`make compare`: compares one slice of the old collections with the new one, for the migration.

The old ones are read through the connection `bi_old`, whose schema names their database; ours through `bi_mongo`.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bson import json_util
from rich.table import Table

from bi_ops.catalog.jobs import JOBS, LoadMode, get_job
from bi_ops.catalog.periods import Period
from bi_ops.catalog.slices import Slice
from bi_ops.errors import BiError
from dev.console import console
from dev.processes import StackError

_EXAMPLES = 3
_NOT_COMPARED = {"_id", "region", "loaded_at", "run_id", "schema_version", "as_of", "period_start"}
Document = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass
class CollectionDiff:
    """What two collections say differently.

    Attributes:
        ours: How many documents ours has.
        theirs: How many the old one has.
        only_in_new: The keys of documents that the old one lacks.
        only_in_old: The keys of those that ours lacks.
        duplicates: The keys that the old one has more than once.
        fields: By field, the keys of documents of which it differs, with the old value and ours.
        missing_fields: Fields of ours that the old documents do not have.
        compared: How many documents were held against each other, field by field.
    """

    ours: int
    theirs: int
    only_in_new: list[Key]
    only_in_old: list[Key]
    duplicates: list[Key]
    fields: dict[str, list[tuple[Key, Any, Any]]] = field(default_factory=lambda: defaultdict(list))
    missing_fields: list[str] = field(default_factory=list)
    compared: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether both say the same of every field that both have."""
        return not (self.only_in_new or self.only_in_old or self.duplicates or self.fields)


def diff_collections(
    ours: Iterable[Document],
    theirs: Iterable[Document],
    key: Sequence[str],
    *,
    field_map: Mapping[str, str],
    tolerance: float = 0.0,
) -> CollectionDiff:
    """Hold two collections against each other.

    Args:
        ours: Our documents.
        theirs: The old ones.
        key: The fields that tell one document from another.
        field_map: What the old ones call a field of ours, where that is another name.
        tolerance: How far apart two numbers may be that are still the same.

    Raises:
        StackError: An old document has no key.
    """
    mine = {tuple(each[name] for name in key): each for each in ours}
    old: dict[Key, Document] = {}
    counts: Counter[Key] = Counter()
    for each in theirs:
        unnamed = [name for name in key if field_map.get(name, name) not in each]
        if unnamed:
            name = unnamed[0]
            raise StackError(
                f"An old document has no {field_map.get(name, name)}, by which it is known; its fields are "
                f"{', '.join(each)}. Say what it is called there: --rename {name}=..."
            )
        known = tuple(each[field_map.get(name, name)] for name in key)
        counts[known] += 1
        old[known] = each
    found = CollectionDiff(
        ours=len(mine),
        theirs=counts.total(),
        only_in_new=sorted(mine.keys() - old.keys(), key=repr),
        only_in_old=sorted(old.keys() - mine.keys(), key=repr),
        duplicates=sorted((each for each, times in counts.items() if times > 1), key=repr),
    )
    names = {name for each in mine.values() for name in each} - _NOT_COMPARED
    there = {name for each in old.values() for name in each}
    found.missing_fields = sorted(name for name in names if field_map.get(name, name) not in there) if old else []
    for known in sorted((mine.keys() & old.keys()) - set(found.duplicates), key=repr):
        found.compared += 1
        for name in sorted(names - set(found.missing_fields)):
            was, now = old[known].get(field_map.get(name, name)), mine[known].get(name)
            if not _same(was, now, tolerance):
                found.fields[name].append((known, was, now))
    return found


def _same(was: Any, now: Any, tolerance: float) -> bool:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        return was.keys() == now.keys() and all(_same(was[name], now[name], tolerance) for name in was)
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(_same(*pair, tolerance) for pair in zip(was, now, strict=True))
    numbers = (int, float)
    if isinstance(was, numbers) and isinstance(now, numbers) and not isinstance(was, bool):
        return math.isclose(was, now, rel_tol=0, abs_tol=tolerance)
    if isinstance(was, datetime) and isinstance(now, datetime):
        return _aware(was) == _aware(now)
    return bool(was == now)


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)


def print_diff(found: CollectionDiff) -> None:
    """Print what differs."""
    table = Table("what differs", "documents", "for example", title="The old collection against ours")
    for what, keys in (
        ("only the old one has", found.only_in_old),
        ("only ours has", found.only_in_new),
        ("the old one has more than once", found.duplicates),
    ):
        table.add_row(what, f"{len(keys):,}", "; ".join(map(_named, keys[:_EXAMPLES])))
    for name, cases in sorted(found.fields.items()):
        examples = "; ".join(f"{_named(known)}: {was!r}, ours {now!r}" for known, was, now in cases[:_EXAMPLES])
        table.add_row(name, f"{len(cases):,}", examples)
    console.print(f"{found.theirs:,} old documents, {found.ours:,} of ours", highlight=False)
    console.print(table)
    if found.missing_fields:
        console.print(
            f"Not compared, since the old documents have none: {', '.join(found.missing_fields)}", highlight=False
        )
    if found.compared or not found.is_empty:
        console.print("They say the same." if found.is_empty else "They differ.")


def _named(known: Key) -> str:
    return ", ".join(map(str, known))


def _renamed(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise argparse.ArgumentTypeError(f"{text!r} is not ours=theirs")
    return ours, theirs


def _filter(text: str) -> dict[str, Any]:
    try:
        found = json_util.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no MongoDB filter in (extended) JSON")
    return found


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.compare", description=__doc__)
    parser.add_argument("job", help="such as monthly_submissions", choices=[job.name for job in JOBS])
    parser.add_argument("region", help="such as eu")
    parser.add_argument("period", nargs="?", help="such as 2026-10; of a job that appends")
    parser.add_argument("--collection", help="the old collection; the job's name where it is not said")
    parser.add_argument("--where", type=_filter, help="which old documents; else those of the region and the period")
    parser.add_argument(
        "--rename", action="append", default=[], type=_renamed, metavar="OURS=THEIRS", help="an old field's name"
    )
    parser.add_argument("--tolerance", type=float, default=0.0, help="how far apart two equal numbers may be")
    asked = parser.parse_args()
    job = get_job(asked.job)
    if (job.mode is LoadMode.REPLACE_PERIOD) != bool(asked.period):
        parser.error(f"{job.name} {'has' if job.mode is LoadMode.REPLACE_PERIOD else 'has no'} periods")
    fields = {field.name for field in job.fields} | {"region", "period", *job.key_fields}
    if strangers := {ours for ours, _ in asked.rename} - fields:
        parser.error(f"{job.name} has no field {sorted(strangers)[0]}; it has {', '.join(sorted(fields))}")
    return asked


def _of_the_slice(asked: argparse.Namespace, old: Any, field_map: Mapping[str, str]) -> dict[str, Any]:
    """The old documents of the region and the period, where the old ones say so."""
    if asked.where is not None:
        return dict(asked.where)
    some = old.find_one() or {}
    values = {field_map.get(name, name): getattr(asked, name) for name in ("region", "period") if getattr(asked, name)}
    return {name: value for name, value in values.items() if name in some}


def main() -> int:
    """Compare one slice, and return the status: 1 where anything differs, 2 where nothing could be compared."""
    asked = _asked()
    os.environ.setdefault("AIRFLOW_HOME", str(Path(__file__).parents[1] / ".local" / "airflow"))
    from bi_ops.airflow.connections import open_store

    job, field_map = get_job(asked.job), dict(asked.rename)
    try:
        period = Period.parse(asked.period, job.cadence, "UTC") if asked.period else None
        ids = Slice(job, asked.region, datetime.now(timezone.utc), period).id_range
        with open_store("compare") as ours, open_store("compare", "bi_old") as theirs:
            old = theirs.live[asked.collection or job.name]
            where = _of_the_slice(asked, old, field_map)
            mine = ours.live[job.name].find(ids.filter)
            found = diff_collections(
                mine, old.find(where), job.key_fields, field_map=field_map, tolerance=asked.tolerance
            )
    except (BiError, StackError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    console.print(f"Old documents of {asked.collection or job.name} where {json_util.dumps(where)}", highlight=False)
    print_diff(found)
    if found.is_empty and not found.compared:
        console.print("Nothing was compared: there are no documents, or none of one are in the other.", style="red")
        return 2
    return 0 if found.is_empty else 1


if __name__ == "__main__":
    sys.exit(main())
