"""MongoDB: whether it can be written as the pipeline must, and no further, and whether reports can read it fast."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any

from bi_ops.doctor.findings import Finding, Verdict, examine, judged, some
from bi_ops.doctor.meg import clock_finding
from bi_ops.store import Store
from bi_ops.store_errors import store_errors_told
from bi_ops.templates import include_folder

SUBJECT = "MongoDB"
_ROLE_CURE = (
    "Give the account the role of include/mongo/role.json, with this connection's databases in it, and no other."
)


def examine_mongo(store: Store) -> Iterator[Finding]:
    """Examine both databases."""

    def told(check: Callable[[Store], Iterable[Finding]], each: Store) -> list[Finding]:
        with store_errors_told("connection bi_mongo"):
            return list(check(each))

    first = list(examine(SUBJECT, [("connection", partial(told, _connection))], store))
    yield from first
    if first[0].verdict is Verdict.FAILED:
        return
    checks = {
        "replica set": _replica_set,
        "rights": _rights,
        "writing": _writing,
        "clock": _clock,
        "indexes for the reports": _indexes,
    }
    yield from examine(SUBJECT, [(name, partial(told, check)) for name, check in checks.items()], store)


def _connection(store: Store) -> Iterator[Finding]:
    """What another machine is sent is encrypted, or the connection would not have been opened."""
    version = store.client.server_info()["version"]
    users = store.client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
    encrypted = store.client.options.pool_options._ssl_context is not None
    account = f"account {users[0]['user']}" if users else "no account"
    how = "through TLS" if encrypted else "on this machine, without TLS"
    yield Finding(SUBJECT, "connection", Verdict.OK, f"MongoDB {version}, database {store.live.name}, {account}, {how}")


def _replica_set(store: Store) -> Iterator[Finding]:
    hello = store.client.admin.command("hello")
    name = hello.get("setName") or ("a sharded cluster" if hello.get("msg") == "isdbgrid" else "")
    problem = "" if name else "a single server: it has no transactions"
    cure = "Start mongod with --replSet and run rs.initiate(); one member is enough."
    yield judged(SUBJECT, "replica set", problem, fine=name, cure=cure)


def _rights(store: Store) -> Iterator[Finding]:
    """What the account may do, held against the role that is shipped."""
    about = store.client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    if not about["authenticatedUsers"]:
        cure = "Turn authorization on (mongod --auth), and give the pipeline an account of its own."
        yield Finding(SUBJECT, "rights", Verdict.FAILED, "this MongoDB lets anyone in, without a login", cure)
        return
    granted = about["authenticatedUserPrivileges"]
    needed = _needed(store)
    missing = [
        f"{action} on {database}"
        for database, actions in needed.items()
        for action in sorted(actions - _on(granted, database))
    ]
    yield judged(
        SUBJECT,
        "rights: enough",
        f"it may not {', '.join(missing)}" if missing else "",
        fine=f"it may read and write {' and '.join(needed)}",
        cure=_ROLE_CURE,
    )
    elsewhere = sorted({_named(privilege["resource"]) for privilege in granted} - set(needed) - {""})
    yield judged(
        SUBJECT,
        "rights: no more",
        f"it may also use {', '.join(elsewhere)}" if elsewhere else "",
        fine="nothing else",
        cure=_ROLE_CURE,
    )
    more = {action for database, actions in needed.items() for action in _on(granted, database) - actions}
    if more:
        worst_first = sorted(more, key=lambda action: (not action.startswith("drop"), action))
        found = f"on its databases it may also {some(worst_first)}"
        yield Finding(SUBJECT, "rights: narrow", Verdict.WARNING, found, _ROLE_CURE)


def _needed(store: Store) -> dict[str, set[str]]:
    """The actions of the role that is shipped, by database: the live one's first, then the staging one's."""
    role = json.loads((include_folder() / "mongo" / "role.json").read_text())
    names = (store.live.name, f"{store.live.name}_staging")
    return {name: set(each["actions"]) for name, each in zip(names, role["privileges"], strict=True)}


def _on(granted: Iterable[Mapping[str, Any]], database: str) -> set[str]:
    """What may be done on every collection of a database."""
    return {
        action
        for privilege in granted
        if privilege["resource"]
        in ({"db": database, "collection": ""}, {"db": "", "collection": ""}, {"anyResource": True})
        for action in privilege["actions"]
    }


def _named(resource: Mapping[str, Any]) -> str:
    """The database that a privilege is about; the whole cluster where it is about more than one."""
    if "db" in resource:
        return str(resource["db"]) or "every database"
    return "the whole cluster"


def _writing(store: Store) -> Iterator[Finding]:
    """A transaction over both databases, as a publish makes it, and given up before its end."""
    with store.client.start_session() as session, session.start_transaction():
        for collection in (store.publishers, store.ledger):
            collection.update_one({"_id": "bi_doctor"}, {"$set": {"examined": True}}, upsert=True, session=session)
        session.abort_transaction()
    yield Finding(SUBJECT, "writing", Verdict.OK, "a transaction over both databases, given up")


def _clock(store: Store) -> Iterator[Finding]:
    before = datetime.now(timezone.utc)
    there: datetime = store.client.admin.command("hello")["localTime"]
    yield clock_finding(SUBJECT, before, there.replace(tzinfo=timezone.utc), datetime.now(timezone.utc))


def _indexes(store: Store) -> Iterator[Finding]:
    """Which of the indexes that make the reports fast are missing; whoever owns the database makes them, never this."""
    recommended = json.loads((include_folder() / "mongo" / "indexes.json").read_text())
    missing = []
    for name, indexes in recommended.items():
        have = [list(index["key"].items()) for index in store.live[name].list_indexes()]
        missing += [
            f"{name} {json.dumps(index['key'])}"
            for index in indexes
            if not any(keys[: len(index["key"])] == list(index["key"].items()) for keys in have)
        ]
    yield judged(
        SUBJECT,
        "indexes for the reports",
        f"missing: {'; '.join(missing)}" if missing else "",
        fine="all that include/mongo/indexes.json recommends",
        cure="Make them on the Atlas website (Browse Collections, Indexes); the pipeline needs none and makes none.",
        warn=True,
    )
