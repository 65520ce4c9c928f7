"""Finds the form and column of a value that MEG cannot compute or the driver cannot read.

MEG's error names neither. So after such an error, parts of the query are run again: first the chunks and forms one by
one, then the columns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bi_ops.errors import BiError, InvalidSourceRowError
from bi_ops.load.staged_loads import Chunk
from bi_ops.meg.reader import MegReader

_MAX_SECONDS = 300
"""The time limit of the search, after which the error names what is known by then."""


class ValueLocator:
    """Finds the form and the column of a value that cannot be read.

    Args:
        meg: The region's MEG.
        sql: The query that failed.
        columns: The names of its columns; empty if it failed before they were known.
        parameters: The parameters that it binds, without the chunks.
        chunks: The chunks that it read.
    """

    def __init__(
        self, meg: MegReader, sql: str, columns: Sequence[str], parameters: Mapping[str, Any], chunks: Sequence[Chunk]
    ) -> None:
        self._meg = meg
        self._sql = sql
        self._columns = columns
        self._parameters = parameters
        self._chunks = [chunk for chunk in chunks if chunk]
        self._deadline = time.monotonic() + _MAX_SECONDS

    def locate(self, error: InvalidSourceRowError) -> InvalidSourceRowError:
        """The error with the value's form and column in its message, as far as they can be found."""
        chunks, forms = self._failing_forms()
        columns = self._failing_columns(chunks)
        column_names = f"column{'s' if len(columns) > 1 else ''} {', '.join(columns)}" if columns else ""
        location = ", ".join(filter(None, (column_names, forms)))
        return error.located(location) if location else error

    def _failing_forms(self) -> tuple[list[list[int]], str]:
        """The smallest part of the chunks in which the query fails, and its description."""
        if not self._chunks:
            return [], ""
        chunk = next((chunk for chunk in self._chunks if self._fails(self._sql, [chunk])), None)
        form = next((form_id for form_id in chunk or () if self._fails(self._sql, [[form_id]])), None)
        if form is not None:
            return [[form]], f"the rows of form {form}"
        chunks = [chunk] if chunk else self._chunks
        forms = sorted(form_id for chunk in chunks for form_id in chunk)
        return chunks, f"the rows of one of the forms {', '.join(map(str, forms))}"

    def _failing_columns(self, chunks: list[list[int]]) -> list[str]:
        """The columns that fail when read alone; empty if all of them fail, as the cause is then not a column."""
        queries = {column: f'SELECT job."{column}" FROM ({self._sql}\n) AS job' for column in self._columns}
        failing = [column for column, sql in queries.items() if self._fails(sql, chunks)]
        return failing if len(failing) < len(self._columns) else []

    def _fails(self, sql: str, chunks: list[list[int]]) -> bool:
        if time.monotonic() > self._deadline:
            return False
        try:
            with self._meg.query(
                sql, {**self._parameters, "chunks": [array_literal(chunk) for chunk in chunks]}
            ) as result:
                for _ in result.batches:
                    pass
        except BiError as error:
            return isinstance(error, InvalidSourceRowError)
        return False


def array_literal(form_ids: Sequence[int]) -> str:
    """Form ids as a PostgreSQL array literal."""
    return f"{{{','.join(map(str, form_ids))}}}"
