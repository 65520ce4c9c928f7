"""Checks MongoDB: replica set, privileges, transactions, clock, collections, published data and indexes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from bi_ops.catalog.jobs import JOBS
from bi_ops.catalog.sql_templates import include_dir
from bi_ops.doctor.meg_checks import check_clock
from bi_ops.doctor.results import Finding, Status, check_result, run_checks
from bi_ops.errors import MongoConfigurationError, ReportError, abbreviate
from bi_ops.mongo.mongo_error_rules import translate_pymongo_errors
from bi_ops.mongo.store import (
    DIGEST_COLLECTION,
    LEDGER_COLLECTION,
    LOADS_COLLECTION,
    STAGING_SUFFIX,
    STAGING_TTL,
    WATCH_COLLECTION,
    Store,
)
from bi_ops.mongo.transactions import TRANSACTION_OPTIONS
from bi_ops.reports.published_data_problems import find_ledger_problems
from bi_ops.settings import Settings

MONGO_SUBJECT = "MongoDB"
_JOB_NAMES = [job.name for job in JOBS]
_EXPECTED_DATA = {
    "region": "documents of regions in MEG_REGIONS only",
    "timezone": "periods in the time zone of BI_TIMEZONE only",
    "publishing": "complete slices",
    "future": "slices that are not newer than the present",
}
_Check = Callable[[Store], Iterable[Finding]]
_ROLE = "the role of include/mongo/role.json, for this connection's databases"
_ROLE_HINT = f"Grant the account {_ROLE}, and no other role."


def check_mongo(store: Store, settings: Settings) -> Iterator[Finding]:
    """Check both databases.

    Args:
        store: The databases.
        settings: The settings in force.
    """
    required: dict[str, _Check] = {
        "replica set": _replica_set,
        "privileges": _privileges,
        "transactions": _transactions,
        "clock skew": _clock_skew,
    }
    optional: dict[str, _Check] = {
        "network address": _network_address,
        "collections": _collections,
        "staging TTL index": _staging_ttl_index,
        "published data": partial(_published_data, settings),
        "indexes": _indexes,
    }
    connection = list(run_checks(MONGO_SUBJECT, [("connection", partial(_run_check, _connection))], store))
    yield from connection
    if connection[0].status is not Status.FAILED:
        checks = [(name, partial(_run_check, check)) for name, check in required.items()]
        checks += [(name, partial(_run_optional_check, name, check)) for name, check in optional.items()]
        yield from run_checks(MONGO_SUBJECT, checks, store)


def _run_check(check: _Check, store: Store) -> list[Finding]:
    with translate_pymongo_errors("connection bi_mongo"):
        return list(check(store))


def _run_optional_check(name: str, check: _Check, store: Store) -> list[Finding]:
    """A check that the account may lack privileges for; another check reports missing privileges."""
    try:
        return _run_check(check, store)
    except (MongoConfigurationError, ReportError) as error:
        return [
            Finding(
                MONGO_SUBJECT,
                name,
                Status.WARNING,
                f"not checked: {error.message}",
                error.expected,
                error.actual,
                error.hint,
            )
        ]


def _connection(store: Store) -> Iterator[Finding]:
    """Version, account and TLS; a connection to another machine without TLS is not opened at all."""
    version = store.client.server_info()["version"]
    users = store.client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
    encrypted = store.client.options.pool_options._ssl_context is not None
    account = f"account {users[0]['user']}" if users else "no account"
    yield Finding(MONGO_SUBJECT, "connection", Status.OK, f"MongoDB {version}, database {store.live.name}, {account}")
    yield Finding(MONGO_SUBJECT, "TLS", Status.OK, "on" if encrypted else "off; the server is on this machine")


def _network_address(store: Store) -> Iterator[Finding]:
    """The address that Atlas's access list or a firewall must allow."""
    address, _, _ = store.client.admin.command("whatsmyuri")["you"].rpartition(":")
    yield Finding(MONGO_SUBJECT, "network address", Status.OK, f"the server sees {address.strip('[]')}")


def _replica_set(store: Store) -> Iterator[Finding]:
    hello = store.client.admin.command("hello")
    name = hello.get("setName") or ("a sharded cluster" if hello.get("msg") == "isdbgrid" else "")
    yield check_result(
        MONGO_SUBJECT,
        "replica set",
        "" if name else "a standalone server, which has no transactions",
        ok_message=name,
        expected="a replica set; one member is enough",
        hint="Start mongod with --replSet and run rs.initiate().",
    )


def _privileges(store: Store) -> Iterator[Finding]:
    """The account's privileges, compared with the role of include/mongo/role.json."""
    auth_info = store.client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    if not auth_info["authenticatedUsers"]:
        yield Finding(
            MONGO_SUBJECT,
            "authentication",
            Status.FAILED,
            "this MongoDB accepts connections without a login",
            expected="an account for the pipeline",
            hint="Enable authorization (mongod --auth), and create an account for the pipeline.",
        )
        return
    granted = auth_info["authenticatedUserPrivileges"]
    needed = _needed(store)
    missing = [
        f"{action} on {database}"
        for database, actions in needed.items()
        for action in sorted(actions - _granted_actions(granted, database))
    ]
    yield check_result(
        MONGO_SUBJECT,
        "privileges",
        f"missing privileges: {', '.join(missing)}" if missing else "",
        ok_message=f"read and write on {' and '.join(needed)}",
        expected=_ROLE,
        hint=_ROLE_HINT,
    )
    elsewhere = sorted({_privilege_scope(privilege["resource"]) for privilege in granted} - set(needed) - {""})
    yield check_result(
        MONGO_SUBJECT,
        "privileges elsewhere",
        f"the account also has privileges on {', '.join(elsewhere)}" if elsewhere else "",
        ok_message="none",
        expected=f"privileges on {' and '.join(needed)} only",
        hint=_ROLE_HINT,
    )
    more = {action for database, actions in needed.items() for action in _granted_actions(granted, database) - actions}
    if more:
        worst_first = sorted(more, key=lambda action: (not action.startswith("drop"), action))
        yield Finding(
            MONGO_SUBJECT,
            "excess privileges",
            Status.WARNING,
            f"the account also has {abbreviate(worst_first)} on its databases",
            expected=_ROLE,
            hint=_ROLE_HINT,
        )


def _needed(store: Store) -> dict[str, set[str]]:
    """The actions of include/mongo/role.json by database: the live one first, then the staging one."""
    role = json.loads((include_dir() / "mongo" / "role.json").read_text())
    names = (store.live.name, f"{store.live.name}{STAGING_SUFFIX}")
    return {name: set(privilege["actions"]) for name, privilege in zip(names, role["privileges"], strict=True)}


def _granted_actions(granted: Iterable[Mapping[str, Any]], database: str) -> set[str]:
    """The actions that are granted on every collection of a database."""
    return {
        action
        for privilege in granted
        if privilege["resource"]
        in ({"db": database, "collection": ""}, {"db": "", "collection": ""}, {"anyResource": True})
        for action in privilege["actions"]
    }


def _privilege_scope(resource: Mapping[str, Any]) -> str:
    """The database of a privilege, or the whole cluster."""
    if "db" in resource:
        return str(resource["db"]) or "every database"
    return "the whole cluster"


def _transactions(store: Store) -> Iterator[Finding]:
    """A transaction over both databases, like that of a publish, aborted before its commit."""
    if store.special_live([LEDGER_COLLECTION]):
        return  # the check of the collections reports it
    with store.client.start_session() as session, session.start_transaction(**TRANSACTION_OPTIONS):
        for collection in (store.publish_locks, store.ledger):
            collection.update_one({"_id": "bi_doctor"}, {"$set": {"examined": True}}, upsert=True, session=session)
        session.abort_transaction()
    yield Finding(
        MONGO_SUBJECT, "transactions", Status.OK, "a test transaction over both databases was aborted as planned"
    )


def _clock_skew(store: Store) -> Iterator[Finding]:
    before = datetime.now(timezone.utc)
    server_time: datetime = store.client.admin.command("hello")["localTime"]
    yield check_clock(MONGO_SUBJECT, before, server_time.replace(tzinfo=timezone.utc), datetime.now(timezone.utc))


def _collections(store: Store) -> Iterator[Finding]:
    """Whether each live collection is one that can be published to."""
    special = store.special_live([*_JOB_NAMES, LEDGER_COLLECTION, WATCH_COLLECTION, DIGEST_COLLECTION])
    yield check_result(
        MONGO_SUBJECT,
        "collections",
        "; ".join(f"the live collection {name} is {kind}" for name, kind in sorted(special.items())),
        ok_message="plain, or not created yet",
        expected="plain collections, without a default collation",
        hint=f"Rename or drop {', '.join(sorted(special))}; the next load creates a plain collection of this name.",
    )


def _staging_ttl_index(store: Store) -> Iterator[Finding]:
    """How long MongoDB keeps staged data: an administrator may have changed that, or dropped the index."""
    check, days = "staging TTL index", STAGING_TTL.days
    staging = store.loads.database
    missing, other = [], []
    for name in sorted({LOADS_COLLECTION, *_JOB_NAMES} & set(staging.list_collection_names())):
        lifetime = _lifetime(staging[name].list_indexes())
        if lifetime is None:
            missing.append(name)
        elif lifetime != STAGING_TTL:
            other.append(f"{name} after {lifetime / timedelta(days=1):g} days")
    if missing:
        yield Finding(
            MONGO_SUBJECT,
            check,
            Status.WARNING,
            f"in {staging.name}, {abbreviate(missing)} {'has' if len(missing) == 1 else 'have'} no TTL index, so "
            "staged data is never deleted",
            expected=f"a TTL index on staged_at, of {days} days",
            hint=f"Trigger a load, which creates the index, or delete data older than {days} days yourself.",
        )
    if other:
        yield Finding(
            MONGO_SUBJECT,
            check,
            Status.WARNING,
            f"in {staging.name}, documents are deleted from {abbreviate(other, len(other))}",
            expected=f"{days} days, as messages say",
            hint="No action needed if this is intended: it is how long a load can be published.",
        )
    if not missing and not other:
        yield Finding(MONGO_SUBJECT, check, Status.OK, f"staged data is deleted after {days} days")


def _lifetime(indexes: Iterable[Mapping[str, Any]]) -> timedelta | None:
    """How long a staging collection keeps its documents; None if it never deletes them."""
    for index in indexes:
        if list(index["key"]) == ["staged_at"] and "expireAfterSeconds" in index:
            return timedelta(seconds=float(index["expireAfterSeconds"]))
    return None


def _published_data(settings: Settings, store: Store) -> Iterator[Finding]:
    """Problems that make published figures wrong or not final; the reports page shows the same."""
    problems = find_ledger_problems(store.live, settings)
    for problem in problems:
        yield Finding(
            MONGO_SUBJECT,
            f"published data: {problem.subject}",
            Status.FAILED if problem.kind == "future" else Status.WARNING,
            problem.message,
            expected=_EXPECTED_DATA[problem.kind],
            hint=f"{problem.hint}{f' Command: {problem.command}' if problem.command else ''}",
        )
    if not problems:
        yield Finding(
            MONGO_SUBJECT, "published data", Status.OK, "complete, in one time zone, of regions in MEG_REGIONS only"
        )


def _indexes(store: Store) -> Iterator[Finding]:
    """Which recommended indexes are missing; the database's owner creates them, not the pipeline."""
    recommended = json.loads((include_dir() / "mongo" / "indexes.json").read_text())
    missing = []
    views = [name for name, kind in store.special_live(list(recommended)).items() if kind == "a view"]
    for name, indexes in recommended.items():
        if name in views:
            continue  # a view has no indexes
        have = [list(index["key"].items()) for index in store.live[name].list_indexes()]
        missing += [
            f"{name} {json.dumps(index['key'])}"
            for index in indexes
            if not any(keys[: len(index["key"])] == list(index["key"].items()) for keys in have)
        ]
    yield check_result(
        MONGO_SUBJECT,
        "indexes",
        f"missing: {'; '.join(missing)}" if missing else "",
        ok_message="all indexes of include/mongo/indexes.json",
        expected="the indexes of include/mongo/indexes.json, which speed up reports; the pipeline needs none",
        hint="Create them on the Atlas website (Browse Collections, Indexes).",
        warn_only=True,
    )
