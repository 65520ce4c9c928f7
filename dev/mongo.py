"""Runs MongoDB as a replica set of one member with authentication, or connects to the server in BI_DEV_MONGO."""

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
ROLE_FILE = Path(__file__).parents[1] / "include" / "mongo" / "role.json"
REPLICA_SET = "meg-bi"
ADMIN = "admin"
_ALREADY_INITIALISED, _UNAUTHORISED = 23, 13


@dataclass(frozen=True)
class Mongo:
    """A running replica set.

    Attributes:
        host: The host on which its primary listens.
        port: The port.
        login: The account to use.
        password: The account's password.
        options: Further options of the connection.
        pid: The process id of the embedded server; None for an external one.
    """

    host: str
    port: int
    login: str | None
    password: str | None
    options: dict[str, Any]
    pid: int | None = None

    def client(self) -> MongoClient[dict[str, Any]]:
        """A new client that uses this account."""
        return MongoClient(
            self.host, self.port, username=self.login, password=self.password, tz_aware=True, **self.options
        )


@contextmanager
def running(
    stack: Path, password: str, *, parameters: dict[str, str] | None = None, cache_gb: float = 0.5
) -> Iterator[Mongo]:
    """Run a replica set with an administrator until the block ends.

    Args:
        stack: The stack's folder, which keeps its data.
        password: The administrator's password, fixed when the data is created.
        parameters: Server parameters, as `mongod --setParameter` takes them.
        cache_gb: The size of its cache, in GB.

    Raises:
        StackError: It cannot be started, or the external server cannot be used.
    """
    if url := os.environ.get(URL_ENV_VAR):
        yield _external(url)
        return
    data, complete = stack / "mongo", stack / "mongo.complete"
    if not complete.exists():
        shutil.rmtree(data, ignore_errors=True)  # left by an interrupted first start
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
        service.wait_until(lambda: answers(server), seconds=60)
        init_replica_set(server, f"127.0.0.1:{port}")
        service.wait_until(lambda: is_primary(server), seconds=60)
        if not complete.exists():
            ensure_admin_user(server)
            complete.touch()
        yield server
    finally:
        stop(service)


def ensure_writer_user(server: Mongo, login: str, password: str) -> Mongo:
    """Create or update an account with only the role of include/mongo/role.json; returns the server with its login."""
    role = json.loads(ROLE_FILE.read_text())
    name = role.pop("createRole")
    with server.client() as client:
        exists = client.admin.command("rolesInfo", name)["roles"]
        client.admin.command("updateRole" if exists else "createRole", name, **role)
    return ensure_account(server, login, password, [name])


def ensure_account(server: Mongo, login: str, password: str, roles: list[str]) -> Mongo:
    """Create or update an account with exactly these roles; returns the server with its login."""
    with server.client() as client:
        exists = client.admin.command("usersInfo", login)["users"]
        client.admin.command("updateUser" if exists else "createUser", login, pwd=password, roles=roles)
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
        raise StackError(f"The MongoDB server in {URL_ENV_VAR} does not answer: {error}") from None
    if "setName" not in hello:
        raise StackError(
            f"The MongoDB server in {URL_ENV_VAR} is not a replica set, so it has no transactions. "
            "Hint: start it with --replSet and run rs.initiate()."
        )
    return server


def mongod_path() -> Path:
    """The path of the embedded server's executable.

    Raises:
        StackError: There is none for this platform.
    """
    package = find_spec("fiftyone")
    for folder in package.submodule_search_locations or () if package else ():
        path = Path(folder) / "db" / "bin" / "mongod"
        if path.exists():
            path.chmod(path.stat().st_mode | 0o111)  # the wheel may lack its executable bit
            return path
    raise StackError(
        "There is no embedded MongoDB for this platform (its wheel is for Linux on x86-64). "
        "Hint: start a replica set of your own and name it: "
        f"{URL_ENV_VAR}='mongodb://admin:password@localhost:27017/?authSource=admin' make run"
    )


def _direct(server: Mongo, *, login: bool = False) -> MongoClient[dict[str, Any]]:
    """A client of this member alone, whether or not it is in a replica set yet."""
    options = {name: value for name, value in server.options.items() if name not in ("authSource", "replicaSet")}
    account: dict[str, Any] = (
        {"username": server.login, "password": server.password, "authSource": "admin"} if login else {}
    )
    return MongoClient(
        server.host, server.port, directConnection=True, serverSelectionTimeoutMS=2000, **options, **account
    )


def answers(server: Mongo) -> bool:
    """Whether the server answers, even while it is in no replica set yet."""
    try:
        with _direct(server) as client:
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def is_primary(server: Mongo) -> bool:
    """Whether the server has elected itself primary."""
    with _direct(server) as client:
        return bool(client.admin.command("hello")["isWritablePrimary"])


def init_replica_set(server: Mongo, member: str) -> None:
    """Initiate the replica set, or give its one member this address.

    Args:
        server: The server, on its own machine, which may use it without a login until it has an administrator.
        member: The address, `host:port`, by which clients find it.
    """
    members = [{"_id": 0, "host": member}]
    with _direct(server) as client:
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
            return
        except OperationFailure as error:
            if error.code == _ALREADY_INITIALISED:
                return  # and has no administrator yet: the first start was interrupted
            if error.code != _UNAUTHORISED:
                raise
    with _direct(server, login=True) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        if config["members"][0]["host"] != member:
            config["members"][0]["host"] = member
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)


def ensure_admin_user(server: Mongo) -> None:
    """Create the administrator unless there is one, when the server no longer allows this without a login."""
    with _direct(server) as client:
        try:
            client.admin.command("createUser", server.login, pwd=server.password, roles=["root"])
        except OperationFailure as error:
            if error.code != _UNAUTHORISED:
                raise
