"""The URL of Airflow's UI, and the links that it shows on a task."""

from __future__ import annotations

import os
from typing import Any

from airflow.configuration import conf
from airflow.providers.common.compat.sdk import BaseOperatorLink
from typing_extensions import override

from bi_ops.airflow.version_compat import SUPPORTS_UI_PAGES


def base_url() -> str:
    """The UI's URL, without a trailing slash."""
    return str(conf.get("api", "base_url", fallback="")).rstrip("/")


def reports_url(view: str) -> str:
    """The URL of a view of the reports page; empty in Airflow 3.0, which has no such page."""
    return f"{base_url()}/bi-reports/#{view}" if SUPPORTS_UI_PAGES else ""


class ReportLink(BaseOperatorLink):
    """A link from a task to the reports of its collection."""

    name = "BI report"

    @override
    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL on the reports page; empty, and so no link, in Airflow 3.0."""
        return reports_url(_collection(ti_key))


class CollectionLink(BaseOperatorLink):
    """A link from a task to its collection in mongo-express, for development; `BI_MONGO_EXPRESS` holds its URL."""

    name = "Collection"

    @override
    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The collection's URL; empty, and so no link, without mongo-express."""
        url = os.environ.get("BI_MONGO_EXPRESS", "").rstrip("/")
        return f"{url}/db/bi/{_collection(ti_key)}" if url else ""


def _collection(ti_key: Any) -> str:
    return str(ti_key.task_id).split(".", maxsplit=1)[0]
