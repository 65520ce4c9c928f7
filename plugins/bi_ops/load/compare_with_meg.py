"""Compares what is published with what MEG says today, and publishes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain

from pymongo.read_concern import ReadConcern

from bi_ops.catalog.slices import Slice
from bi_ops.catalog.sql_templates import render_sql
from bi_ops.load.documents import Pseudonymizer
from bi_ops.load.plan import plan
from bi_ops.load.publish import measure_live, merge_join
from bi_ops.load.stage import stage
from bi_ops.load.staged_loads import Load, LoadSettings, LoadStates
from bi_ops.load.staging_buckets import StagingBuckets
from bi_ops.meg.reader import MegReader
from bi_ops.mongo.raw_bson import equal_ignoring_load_metadata
from bi_ops.mongo.store import BATCH_SIZE, DagRunRef, Store, iter_document_batches


@dataclass(frozen=True)
class Difference:
    """How a published slice differs from MEG today.

    Attributes:
        slice: The slice.
        documents: The number of published documents.
        changed: How many of them are different in MEG.
        added: How many documents MEG has and the slice has not.
        removed: How many documents the slice has and MEG has not.
        published: The sum of the job's main measure, such as submissions, over the published documents.
        in_meg: The same sum over the documents that MEG gives today.
    """

    slice: Slice
    documents: int
    changed: int
    added: int
    removed: int
    published: int
    in_meg: int

    @property
    def is_equal(self) -> bool:
        """Whether a load would change nothing."""
        return not (self.changed or self.added or self.removed)


def audit(
    meg: MegReader,
    store: Store,
    slice_: Slice,
    run: DagRunRef,
    *,
    settings: LoadSettings,
    pseudonyms: Pseudonymizer | None = None,
) -> Difference:
    """Stage a slice as a load does, and compare it with the live slice.

    Args:
        meg: The region's MEG.
        store: The databases.
        slice_: The slice, of a job that reads forms in chunks.
        run: The DAG run that audits.
        settings: The settings of the load.
        pseudonyms: Replaces names of people; None if they are kept.

    Raises:
        As `plan`, `stage` and `compare` do.
    """
    store.ensure_staging_collections(slice_.job.name)
    sql = render_sql("list_forms.sql")
    tasks = plan(meg, slice_, sql=sql, forms_per_chunk=settings.forms_per_chunk, max_tasks=1)
    load = Load(slice_, run, settings, datetime.now(timezone.utc))
    LoadStates(store).create(load, tasks)
    for _ in stage(meg, store, load, 0, sql=render_sql(f"{slice_.job.name}.sql"), pseudonyms=pseudonyms):
        pass
    return compare(store, load)


def compare(store: Store, load: Load) -> Difference:
    """Compare a staged load with the live slice.

    Args:
        store: The databases.
        load: A load whose stage tasks have completed.

    Raises:
        StagingError: A stage task has not completed, or the staged data does not match the completions.
    """
    staged, staging = LoadStates(store).staged(load), StagingBuckets(store, load)
    # One snapshot: a publish meanwhile must not look like a difference.
    live = store.live_collection(load.slice.job.name).with_options(read_concern=ReadConcern("snapshot"))
    ids = load.slice.id_range
    before = measure_live(store, load.slice)
    changed = added = removed = 0
    with store.client.start_session() as session:
        batches = iter_document_batches(live, ids, session, BATCH_SIZE)
        new_documents = chain.from_iterable(staging.iter_documents(staging.list_buckets(staged), ids.start, BATCH_SIZE))
        for new, old in merge_join(new_documents, chain.from_iterable(batches)):
            added += not old
            removed += not new
            changed += bool(new and old and not equal_ignoring_load_metadata(old, new))
    return Difference(load.slice, before.documents, changed, added, removed, before.measure, staged.measure)
