"""What MongoDB's driver needs to connect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MongoTarget:
    """Where a connection leads.

    Attributes:
        conn_id: The connection's id.
        uri: The server; it holds the password.
        options: The driver's options.
        database: The live database's name.
    """

    conn_id: str
    uri: str = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    database: str
