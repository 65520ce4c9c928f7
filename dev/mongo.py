"""MongoDB as a replica set of one, with authentication: embedded, or a server named in BI_DEV_MONGO."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from dev.processes import Service, StackError, child_env, free_port, stop, write_secret

URL_ENV_VAR = "BI_DEV_MONGO"
ROLE = Path(__file__).parents[1] / "include" / "mongo" / "role.json"
REPLICA_SET = "meg-bi"
ADMIN = "admin"
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
def running(
    stack: Path, password: str, *, parameters: dict[str, str] | None = None, cache_gb: float = 0.5
) -> Iterator[Mongo]:
    """A replica set with an administrator, up until the block ends.

    Args:
        stack: The stack's folder, which keeps its data.
        password: The administrator's, kept with the data.
        parameters: Server parameters, as `mongod --setParameter` takes them.
        cache_gb: How much of memory it takes for its cache.

    Raises:
        StackError: It cannot be started.
    """
    if url := os.environ.get(URL_ENV_VAR):
        yield _external(url)
        return
    data, complete = stack / "mongo", stack / "mongo.complete"
    if not complete.exists():
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted first start left
    data.mkdir(parents=True, exist_ok=True)
    key = stack / "mongo.key"
    if not key.exists():
        write_secret(key, secrets.token_hex(64))
    port = free_port()
    settings = {"diagnosticDataCollectionEnabled": "false", **(parameters or {})}
    service = Service(
        "MongoDB",
        [
            *(str(mongod_path()), "--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1"),
            *("--replSet", REPLICA_SET, "--keyFile", str(key), "--quiet", "--wiredTigerCacheSizeGB", str(cache_gb)),
            *("--nounixsocket",),
            *(part for name, value in settings.items() for part in ("--setParameter", f"{name}={value}")),
        ],
        log=stack / "logs" / "mongo.log",
        environment=child_env(stack, {}),
    )
    options = {"authSource": "admin", "replicaSet": REPLICA_SET}
    server = Mongo("127.0.0.1", port, ADMIN, password, options, service.process.pid)
    try:
        service.wait_until(lambda: _answers(server), seconds=60)
        init_replica_set(server, f"127.0.0.1:{port}")
        service.wait_until(lambda: is_primary(server), seconds=60)
        if not complete.exists():
            ensure_admin_user(server)
            complete.touch()
        yield server
    finally:
        stop(service)


def ensure_writer_user(server: Mongo, login: str, password: str) -> Mongo:
    """The same server through an account with the role of include/mongo/role.json and nothing else."""
    role = json.loads(ROLE.read_text())
    name = role.pop("createRole")
    with server.client() as client:
        known = client.admin.command("rolesInfo", name)["roles"]
        client.admin.command("updateRole" if known else "createRole", name, **role)
    return ensure_account(server, login, password, [name])


def ensure_account(server: Mongo, login: str, password: str, roles: list[str]) -> Mongo:
    """The same server through an account with these roles and nothing else."""
    with server.client() as client:
        known = client.admin.command("usersInfo", login)["users"]
        client.admin.command("updateUser" if known else "createUser", login, pwd=password, roles=roles)
    return replace(server, login=login, password=password)


def _external(url: str) -> Mongo:
    try:
        parsed = parse_uri(url)
    except PyMongoError:
        raise StackError(
            f"{URL_ENV_VAR} is not a MongoDB URL such as mongodb://admin:password@localhost:27017/?authSource=admin"
        ) from None
    host, port = parsed["nodelist"][0]
    options = {"authSource": "admin", **dict(parsed["options"])}
    server = Mongo(host, int(port or 27017), parsed["username"], parsed["password"], options)
    try:
        with server.client() as client:
            hello = client.admin.command("hello")
    except PyMongoError as error:
        raise StackError(f"The MongoDB server that {URL_ENV_VAR} names does not answer: {error}") from None
    if "setName" not in hello:
        raise StackError(
            f"The MongoDB server that {URL_ENV_VAR} names is not a replica set, so it has no transactions. "
            "Start it with --replSet and run rs.initiate()."
        )
    return server


def mongod_path() -> Path:
    """The embedded server's program.

    Raises:
        StackError: There is none for this platform.
    """
    package = find_spec("fiftyone")
    for folder in package.submodule_search_locations or () if package else ():
        mongod_path = Path(folder) / "db" / "bin" / "mongod"
        if mongod_path.exists():
            mongod_path.chmod(mongod_path.stat().st_mode | 0o111)  # the wheel may lack its run bit
            return mongod_path
    raise StackError(
        "There is no embedded MongoDB for this platform (its wheel is for Linux on x86-64). Start a replica set of "
        f"your own and name it: {URL_ENV_VAR}='mongodb://admin:password@localhost:27017/?authSource=admin' make run"
    )


def _direct(server: Mongo, *, let_in: bool = False) -> MongoClient[dict[str, Any]]:
    """A client of this one member, whether or not it is in a replica set yet."""
    options = {name: value for name, value in server.options.items() if name not in ("authSource", "replicaSet")}
    account: dict[str, Any] = (
        {"username": server.login, "password": server.password, "authSource": "admin"} if let_in else {}
    )
    return MongoClient(
        server.host, server.port, directConnection=True, serverSelectionTimeoutMS=2000, **options, **account
    )


def _answers(server: Mongo) -> bool:
    try:
        with _direct(server) as client:
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def is_primary(server: Mongo) -> bool:
    """Whether the server has elected itself."""
    with _direct(server) as client:
        return bool(client.admin.command("hello")["isWritablePrimary"])


def init_replica_set(server: Mongo, member: str) -> None:
    """Let the one member elect itself: at first, and when its address is another one than last time.

    Args:
        server: The server, asked from its own machine: it is open to anyone there until it has an administrator.
        member: The address by which clients find it.
    """
    members = [{"_id": 0, "host": member}]
    with _direct(server) as client:
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
            return
        except OperationFailure as error:
            if error.code == _ALREADY_INITIALISED:
                return  # and open still: a first start was interrupted before there was an administrator
            if error.code != _UNAUTHORISED:
                raise
    with _direct(server, let_in=True) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        if config["members"][0]["host"] != member:
            config["members"][0]["host"] = member
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)


def ensure_admin_user(server: Mongo) -> None:
    """Make the administrator, where there is none: only then the server lets its own machine do so."""
    with _direct(server) as client:
        try:
            client.admin.command("createUser", server.login, pwd=server.password, roles=["root"])
        except OperationFailure as error:
            if error.code != _UNAUTHORISED:
                raise
