"""The settings of a MongoDB connection: the server's URI, the driver's options and the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MongoClientSettings:
    """A MongoDB connection's settings for the driver.

    Attributes:
        conn_id: The connection's id.
        uri: The server's URI, with the password.
        options: The driver's options.
        database: The live database's name.
    """

    conn_id: str
    uri: str = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    database: str
