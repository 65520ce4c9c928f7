"""MongoDB: whether it can be written as the pipeline must, and no further, and whether reports can read it fast."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from bi_ops.catalog.jobs import JOBS
from bi_ops.catalog.sql import include_dir
from bi_ops.doctor.meg_checks import check_clock
from bi_ops.doctor.results import Finding, Status, check_result, run_checks
from bi_ops.errors import MongoConfigurationError, ReportError, abbreviate
from bi_ops.mongo.errors import translate_pymongo_errors
from bi_ops.mongo.store import LEDGER_COLLECTION, LOADS_COLLECTION, STAGING_SUFFIX, STAGING_TTL, Store
from bi_ops.mongo.transactions import TRANSACTION_OPTIONS
from bi_ops.reports.ledger_problems import find_ledger_problems
from bi_ops.settings import Settings

MONGO_SUBJECT = "MongoDB"
_JOB_NAMES = [job.name for job in JOBS]
_Check = Callable[[Store], Iterable[Finding]]
_ROLE_HINT = (
    "Give the account the role of include/mongo/role.json, with this connection's databases in it, and no other."
)


def check_mongo(store: Store, settings: Settings) -> Iterator[Finding]:
    """Examine both databases.

    Args:
        store: The databases.
        settings: The settings in force.
    """
    required: dict[str, _Check] = {
        "replica set": _replica_set,
        "rights": _rights,
        "writing": _writing,
        "clock": _clock,
    }
    optional: dict[str, _Check] = {
        "collections": _collections,
        "staged data": _staged_data,
        "figures": partial(_figures, settings),
        "indexes for the reports": _indexes,
    }
    first = list(run_checks(MONGO_SUBJECT, [("connection", partial(_run_check, _connection))], store))
    yield from first
    if first[0].status is not Status.FAILED:
        checks = [(name, partial(_run_check, check)) for name, check in required.items()]
        checks += [(name, partial(_run_optional_check, name, check)) for name, check in optional.items()]
        yield from run_checks(MONGO_SUBJECT, checks, store)


def _run_check(check: _Check, store: Store) -> list[Finding]:
    with translate_pymongo_errors("connection bi_mongo"):
        return list(check(store))


def _run_optional_check(name: str, check: _Check, store: Store) -> list[Finding]:
    """A check that the account may not be able to make; whether it can do its work is another check's matter."""
    try:
        return _run_check(check, store)
    except (MongoConfigurationError, ReportError) as error:
        found = f"not checked, since {error.message}: {error.actual}"
        return [Finding(MONGO_SUBJECT, name, Status.WARNING, found, error.hint)]


def _connection(store: Store) -> Iterator[Finding]:
    """What another machine is sent is encrypted, or the connection would not have been opened."""
    version = store.client.server_info()["version"]
    users = store.client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
    encrypted = store.client.options.pool_options._ssl_context is not None
    account = f"account {users[0]['user']}" if users else "no account"
    how = "through TLS" if encrypted else "on this machine, without TLS"
    yield Finding(
        MONGO_SUBJECT, "connection", Status.OK, f"MongoDB {version}, database {store.live.name}, {account}, {how}"
    )


def _replica_set(store: Store) -> Iterator[Finding]:
    hello = store.client.admin.command("hello")
    name = hello.get("setName") or ("a sharded cluster" if hello.get("msg") == "isdbgrid" else "")
    problem = "" if name else "a single server: it has no transactions"
    hint = "Start mongod with --replSet and run rs.initiate(); one member is enough."
    yield check_result(MONGO_SUBJECT, "replica set", problem, ok_message=name, hint=hint)


def _rights(store: Store) -> Iterator[Finding]:
    """What the account may do, held against the role that is shipped."""
    about = store.client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    if not about["authenticatedUsers"]:
        hint = "Turn authorization on (mongod --auth), and give the pipeline an account of its own."
        yield Finding(MONGO_SUBJECT, "rights", Status.FAILED, "this MongoDB lets anyone in, without a login", hint)
        return
    granted = about["authenticatedUserPrivileges"]
    needed = _needed(store)
    missing = [
        f"{action} on {database}"
        for database, actions in needed.items()
        for action in sorted(actions - _on(granted, database))
    ]
    yield check_result(
        MONGO_SUBJECT,
        "rights: enough",
        f"it may not {', '.join(missing)}" if missing else "",
        ok_message=f"it may read and write {' and '.join(needed)}",
        hint=_ROLE_HINT,
    )
    elsewhere = sorted({_named(privilege["resource"]) for privilege in granted} - set(needed) - {""})
    yield check_result(
        MONGO_SUBJECT,
        "rights: no more",
        f"it may also use {', '.join(elsewhere)}" if elsewhere else "",
        ok_message="nothing else",
        hint=_ROLE_HINT,
    )
    more = {action for database, actions in needed.items() for action in _on(granted, database) - actions}
    if more:
        worst_first = sorted(more, key=lambda action: (not action.startswith("drop"), action))
        found = f"on its databases it may also {abbreviate(worst_first)}"
        yield Finding(MONGO_SUBJECT, "rights: narrow", Status.WARNING, found, _ROLE_HINT)


def _needed(store: Store) -> dict[str, set[str]]:
    """The actions of the role that is shipped, by database: the live one's first, then the staging one's."""
    role = json.loads((include_dir() / "mongo" / "role.json").read_text())
    names = (store.live.name, f"{store.live.name}{STAGING_SUFFIX}")
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
    if store.special_live([LEDGER_COLLECTION]):
        return  # which is named as such
    with store.client.start_session() as session, session.start_transaction(**TRANSACTION_OPTIONS):
        for collection in (store.publish_locks, store.ledger):
            collection.update_one({"_id": "bi_doctor"}, {"$set": {"examined": True}}, upsert=True, session=session)
        session.abort_transaction()
    yield Finding(MONGO_SUBJECT, "writing", Status.OK, "a transaction over both databases, given up")


def _clock(store: Store) -> Iterator[Finding]:
    before = datetime.now(timezone.utc)
    there: datetime = store.client.admin.command("hello")["localTime"]
    yield check_clock(MONGO_SUBJECT, before, there.replace(tzinfo=timezone.utc), datetime.now(timezone.utc))


def _collections(store: Store) -> Iterator[Finding]:
    """Whether each live collection is one that can be published to."""
    special = store.special_live([*_JOB_NAMES, LEDGER_COLLECTION])
    yield check_result(
        MONGO_SUBJECT,
        "collections",
        "; ".join(f"the live collection {name} is {kind}" for name, kind in sorted(special.items())),
        ok_message="plain ones, where they exist",
        hint=f"Rename or drop {', '.join(sorted(special))}; the next load makes a plain collection of this name.",
    )


def _staged_data(store: Store) -> Iterator[Finding]:
    """How long MongoDB keeps staged data: an administrator may choose it, and may have dropped the index."""
    check, days = "staged data", STAGING_TTL.days
    staging = store.loads.database
    missing, other = [], []
    for name in sorted({LOADS_COLLECTION, *_JOB_NAMES} & set(staging.list_collection_names())):
        lifetime = _lifetime(staging[name].list_indexes())
        if lifetime is None:
            missing.append(name)
        elif lifetime != STAGING_TTL:
            other.append(f"{name} after {lifetime / timedelta(days=1):g} days")
    if missing:
        found = f"in {staging.name}, {abbreviate(missing)} {'has' if len(missing) == 1 else 'have'} no TTL index"
        hint = f"Trigger a load, which makes the index on staged_at, or delete what is older than {days} days yourself."
        yield Finding(MONGO_SUBJECT, check, Status.WARNING, f"{found}: nothing is ever deleted", hint)
    if other:
        found = f"in {staging.name}, documents are deleted from {abbreviate(other, len(other))}"
        hint = f"Nothing if it is meant: a load can be published for so long; {days} days is what messages speak of."
        yield Finding(MONGO_SUBJECT, check, Status.WARNING, found, hint)
    if not missing and not other:
        yield Finding(MONGO_SUBJECT, check, Status.OK, f"deleted after {days} days")


def _lifetime(indexes: Iterable[Mapping[str, Any]]) -> timedelta | None:
    """How long a staging collection keeps its documents; None where it keeps them for ever."""
    for index in indexes:
        if list(index["key"]) == ["staged_at"] and "expireAfterSeconds" in index:
            return timedelta(seconds=float(index["expireAfterSeconds"]))
    return None


def _figures(settings: Settings, store: Store) -> Iterator[Finding]:
    """What makes the published figures wrong or not final, as the page of the reports shows it."""
    problems = find_ledger_problems(store.live, settings)
    for problem in problems:
        verdict = Status.FAILED if problem.kind == "future" else Status.WARNING
        hint = f"{problem.hint}{f' Command: {problem.command}' if problem.command else ''}"
        yield Finding(MONGO_SUBJECT, f"figures: {problem.subject}", verdict, problem.message, hint)
    if not problems:
        yield Finding(MONGO_SUBJECT, "figures", Status.OK, "of regions in MEG_REGIONS alone, whole, in one time zone")


def _indexes(store: Store) -> Iterator[Finding]:
    """Which recommended indexes are missing; the database's owner creates them, never this package."""
    recommended = json.loads((include_dir() / "mongo" / "indexes.json").read_text())
    missing = []
    views = [name for name, kind in store.special_live(list(recommended)).items() if kind == "a view"]
    for name, indexes in recommended.items():
        if name in views:
            continue  # it has no indexes
        have = [list(index["key"].items()) for index in store.live[name].list_indexes()]
        missing += [
            f"{name} {json.dumps(index['key'])}"
            for index in indexes
            if not any(keys[: len(index["key"])] == list(index["key"].items()) for keys in have)
        ]
    yield check_result(
        MONGO_SUBJECT,
        "indexes for the reports",
        f"missing: {'; '.join(missing)}" if missing else "",
        ok_message="all that include/mongo/indexes.json recommends",
        hint="Make them on the Atlas website (Browse Collections, Indexes); the pipeline needs none and makes none.",
        warn_only=True,
    )
