"""A reference to an XCom that fails the task, without retries, if the XCom has been removed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, XComNotFound
from airflow.sdk.definitions.xcom_arg import PlainXComArg
from typing_extensions import override

from bi_ops.airflow.task_error_log import log_error
from bi_ops.errors import StagingError

log = logging.getLogger(__name__)


class RequiredXComArg(PlainXComArg):
    """A required XCom of `plan`; if it has been removed, no retry brings it back.

    Airflow's own reference then raises an error that is retried, or none at all.
    """

    @override
    def resolve(self, context: Mapping[str, Any]) -> Any:
        """The XCom's value; fails the task without retries if there is none."""
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
            log_error(log.error, error)
            raise AirflowFailException(error.summary)
        return value
