"""An XCom without which a task cannot go on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, XComNotFound
from airflow.sdk.definitions.xcom_arg import PlainXComArg
from typing_extensions import override

from bi_ops.airflow.reasons import log_reason
from bi_ops.errors import StagingError

log = logging.getLogger(__name__)


class RequiredXComArg(PlainXComArg):
    """An XCom of `plan` without which a task cannot go on, and which no retry brings back.

    Airflow's own reference raises an error that is retried, or none at all, where the XCom has been removed.
    """

    @override
    def resolve(self, context: Mapping[str, Any]) -> Any:
        """The XCom's value; fails the task for good where there is none."""
        try:
            value = super().resolve(context)
        except XComNotFound:
            value = None
        if value is None:
            group = self.operator.task_id.rpartition(".")[0]
            error = StagingError(
                "the load's plan is missing from Airflow's metadata database",
                context=f"task group {group}",
                expected=f"the XCom {self.key} of {self.operator.task_id}",
                actual="no such XCom; `airflow db clean` or a user removed it",
                hint=f"Clear the task group {group} of this run to read MEG again.",
            )
            log_reason(log.error, error)
            raise AirflowFailException(error.summary)
        return value
