"""`make compare`: compares a slice of an old collection with the new one, for the migration.

The old one is read through the connection `bi_old`, whose schema names its database, the new one through `bi_mongo`.
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

_MAX_EXAMPLES = 3
_NOT_COMPARED = {"_id", "region", "loaded_at", "run_id", "schema_version", "as_of", "period_start"}
Document = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass
class CollectionDiff:
    """The differences between an old collection and the new one.

    Attributes:
        new_count: The number of new documents.
        old_count: The number of old documents.
        only_in_new: The keys of documents that the old collection lacks.
        only_in_old: The keys of documents that the new collection lacks.
        duplicates: The keys that the old collection has more than once.
        fields: By field, the documents in which it differs: key, old value, new value.
        missing_fields: New fields that no old document has.
        compared: The number of documents whose fields were compared.
    """

    new_count: int
    old_count: int
    only_in_new: list[Key]
    only_in_old: list[Key]
    duplicates: list[Key]
    fields: dict[str, list[tuple[Key, Any, Any]]] = field(default_factory=lambda: defaultdict(list))
    missing_fields: list[str] = field(default_factory=list)
    compared: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether both collections are equal in every field that both have."""
        return not (self.only_in_new or self.only_in_old or self.duplicates or self.fields)


def diff_collections(
    new: Iterable[Document],
    old: Iterable[Document],
    key_fields: Sequence[str],
    *,
    field_map: Mapping[str, str],
    tolerance: float = 0.0,
) -> CollectionDiff:
    """Compare an old collection with the new one.

    Args:
        new: The new documents.
        old: The old documents.
        key_fields: The fields that identify a document.
        field_map: The old name of each new field that was renamed.
        tolerance: The largest difference between two numbers that count as equal.

    Raises:
        StackError: An old document lacks a key field.
    """
    new_by_key = {tuple(document[name] for name in key_fields): document for document in new}
    old_by_key, key_counts = _index_old(old, key_fields, field_map)
    diff = CollectionDiff(
        new_count=len(new_by_key),
        old_count=key_counts.total(),
        only_in_new=sorted(new_by_key.keys() - old_by_key.keys(), key=repr),
        only_in_old=sorted(old_by_key.keys() - new_by_key.keys(), key=repr),
        duplicates=sorted((key for key, count in key_counts.items() if count > 1), key=repr),
    )
    new_fields = {name for document in new_by_key.values() for name in document} - _NOT_COMPARED
    old_fields = {name for document in old_by_key.values() for name in document}
    if old_by_key:
        diff.missing_fields = sorted(name for name in new_fields if field_map.get(name, name) not in old_fields)
    for key in sorted((new_by_key.keys() & old_by_key.keys()) - set(diff.duplicates), key=repr):
        diff.compared += 1
        for name in sorted(new_fields - set(diff.missing_fields)):
            old_value, new_value = old_by_key[key].get(field_map.get(name, name)), new_by_key[key].get(name)
            if not _are_equal(old_value, new_value, tolerance):
                diff.fields[name].append((key, old_value, new_value))
    return diff


def _index_old(
    documents: Iterable[Document], key_fields: Sequence[str], field_map: Mapping[str, str]
) -> tuple[dict[Key, Document], Counter[Key]]:
    """The old documents by key, and how often each key occurs."""
    by_key: dict[Key, Document] = {}
    counts: Counter[Key] = Counter()
    for document in documents:
        missing = [name for name in key_fields if field_map.get(name, name) not in document]
        if missing:
            raise StackError(
                f"An old document has no {field_map.get(missing[0], missing[0])}, a key field; its fields are "
                f"{', '.join(document)}. Hint: give the old name with --rename {missing[0]}=..."
            )
        key = tuple(document[field_map.get(name, name)] for name in key_fields)
        counts[key] += 1
        by_key[key] = document
    return by_key, counts


def _are_equal(old: Any, new: Any, tolerance: float) -> bool:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_are_equal(old[name], new[name], tolerance) for name in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(_are_equal(*pair, tolerance) for pair in zip(old, new, strict=True))
    numbers = (int, float)
    if isinstance(old, numbers) and isinstance(new, numbers) and not isinstance(old, bool):
        return math.isclose(old, new, rel_tol=0, abs_tol=tolerance)
    if isinstance(old, datetime) and isinstance(new, datetime):
        return _aware(old) == _aware(new)
    return bool(old == new)


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)


def print_diff(diff: CollectionDiff) -> None:
    """Print the differences as a table."""
    table = Table("difference", "documents", "examples", title="Old collection compared with the new one")
    for title, keys in (
        ("only in old", diff.only_in_old),
        ("only in new", diff.only_in_new),
        ("duplicate in old", diff.duplicates),
    ):
        table.add_row(title, f"{len(keys):,}", "; ".join(map(_format_key, keys[:_MAX_EXAMPLES])))
    for name, cases in sorted(diff.fields.items()):
        examples = "; ".join(f"{_format_key(key)}: old {old!r}, new {new!r}" for key, old, new in cases[:_MAX_EXAMPLES])
        table.add_row(name, f"{len(cases):,}", examples)
    console.print(f"{diff.old_count:,} old documents, {diff.new_count:,} new ones", highlight=False)
    console.print(table)
    if diff.missing_fields:
        fields = ", ".join(diff.missing_fields)
        console.print(f"Not compared, since the old documents have none: {fields}", highlight=False)
    if diff.compared or not diff.is_empty:
        console.print("No differences." if diff.is_empty else "Differences found.")


def _format_key(key: Key) -> str:
    return ", ".join(map(str, key))


def _parse_rename(text: str) -> tuple[str, str]:
    new, equals, old = text.partition("=")
    if not (new and equals and old):
        raise argparse.ArgumentTypeError(f"{text!r} is not NEW=OLD")
    return new, old


def _parse_filter(text: str) -> dict[str, Any]:
    try:
        value = json_util.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a MongoDB filter in (extended) JSON")
    return value


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.compare", description=__doc__)
    parser.add_argument("job", help="such as monthly_submissions", choices=[job.name for job in JOBS])
    parser.add_argument("region", help="such as eu")
    parser.add_argument("period", nargs="?", help="such as 2026-10; for a job that has periods")
    parser.add_argument("--collection", help="the old collection; default: the job's name")
    parser.add_argument("--where", type=_parse_filter, help="a filter of the old documents; default: region and period")
    parser.add_argument(
        "--rename", action="append", default=[], type=_parse_rename, metavar="NEW=OLD", help="a field's old name"
    )
    parser.add_argument("--tolerance", type=float, default=0.0, help="the largest difference between equal numbers")
    arguments = parser.parse_args()
    job = get_job(arguments.job)
    if (job.mode is LoadMode.REPLACE_PERIOD) != bool(arguments.period):
        parser.error(f"{job.name} {'has' if job.mode is LoadMode.REPLACE_PERIOD else 'has no'} periods")
    fields = {field.name for field in job.fields} | {"region", "period", *job.key_fields}
    if unknown := {new for new, _ in arguments.rename} - fields:
        parser.error(f"{job.name} has no field {sorted(unknown)[0]}; it has {', '.join(sorted(fields))}")
    return arguments


def _old_slice_filter(arguments: argparse.Namespace, old: Any, field_map: Mapping[str, str]) -> dict[str, Any]:
    """The filter that was given, else one of region and period, as far as the old documents have these fields."""
    if arguments.where is not None:
        return dict(arguments.where)
    example = old.find_one() or {}
    values = {name: getattr(arguments, name) for name in ("region", "period")}
    old_values = {field_map.get(name, name): value for name, value in values.items() if value}
    return {name: value for name, value in old_values.items() if name in example}


def main() -> int:
    """Compare one slice, and return the exit status: 1 for differences, 2 where nothing could be compared."""
    arguments = _parse_arguments()
    os.environ.setdefault("AIRFLOW_HOME", str(Path(__file__).parents[1] / ".local" / "airflow"))
    from bi_ops.airflow.connections import open_store

    job, field_map = get_job(arguments.job), dict(arguments.rename)
    collection = arguments.collection or job.name
    try:
        period = Period.parse(arguments.period, job.cadence, "UTC") if arguments.period else None
        id_range = Slice(job, arguments.region, datetime.now(timezone.utc), period).id_range
        with open_store("compare") as new_store, open_store("compare", "bi_old") as old_store:
            old = old_store.live[collection]
            where = _old_slice_filter(arguments, old, field_map)
            new_documents = new_store.live[job.name].find(id_range.filter)
            diff = diff_collections(
                new_documents, old.find(where), job.key_fields, field_map=field_map, tolerance=arguments.tolerance
            )
    except (BiError, StackError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    console.print(f"Old documents of {collection} where {json_util.dumps(where)}", highlight=False)
    print_diff(diff)
    if diff.is_empty and not diff.compared:
        console.print("Nothing was compared: one or both collections have no documents of this slice.", style="red")
        return 2
    return 0 if diff.is_empty else 1


if __name__ == "__main__":
    sys.exit(main())
