"""Translates PyMongo's errors into MEG BI's, by a table of rules: what happened, and whether a retry may help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson.errors import InvalidDocument
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
)

from bi_ops.errors import (
    BiError,
    ConnectionConfigError,
    ErrorRule,
    InvalidSourceRowError,
    MongoConfigurationError,
    MongoUnavailableError,
    find_rule,
)

_MAX_MESSAGE_LENGTH = 300

_UNUSABLE = ErrorRule(
    ConnectionConfigError,
    "the MongoDB driver cannot use this connection",
    "host, login and password in their own fields, and the driver's options in the extra",
    "Correct the connection; https://www.mongodb.com/docs/manual/reference/connection-string-options/ lists the "
    "options.",
)
_UNREACHABLE = ErrorRule(
    MongoUnavailableError,
    "MongoDB cannot be reached",
    "a running replica set with a primary",
    "Retried automatically. If it persists, check that the server is up and can be reached from here, and the "
    "connection's host, port and tls.",
    pattern="Name or service not known|nodename nor servname|No address associated",
)
_TOO_LARGE = ErrorRule(
    InvalidSourceRowError,
    "a document cannot be stored",
    "at most 16 MB",
    "Find the row with psql and correct it in MEG, or shorten the text in the job's SQL.",
    pattern="object to insert too large|BSONObj size",
)
_OTHER = ErrorRule(
    MongoUnavailableError,
    "MongoDB operation failed",
    "",
    "Retried automatically. If it persists, check the server's log.",
)
_CONNECTION_RULES = (
    ErrorRule(
        ConnectionConfigError,
        "MongoDB's certificate cannot be trusted",
        'a certificate for this host, of an authority that "tlsCAFile" or this machine trusts',
        "Save the authority's certificate to a file and name it as \"tlsCAFile\" in the connection's extra.",
        pattern="CERTIFICATE_VERIFY_FAILED|certificate verify failed|doesn't match|not valid for",
    ),
    _UNREACHABLE,
    # Atlas answers an address that is not on its access list with silence, or by breaking the TLS handshake off.
    ErrorRule(
        MongoUnavailableError,
        "Atlas does not answer this address",
        "this machine's public address on the project's IP access list, and a cluster that is not paused",
        "Retried automatically. If it persists, add the address under Security, Network Access on the Atlas website "
        "(on MWAA and Astronomer: the NAT gateway's), or resume the cluster.",
        pattern=r"\.mongodb\.net",  # in the name of every Atlas server, which the driver puts before the problem
    ),
)
_OPERATION_RULES = (
    _TOO_LARGE,
    ErrorRule(
        MongoUnavailableError,
        "MongoDB has no room left",
        "room for a second copy of the staged data",
        "Retried automatically. If it persists, make room or enlarge the cluster; live data is unchanged, and staged "
        "data is deleted after 30 days.",
        codes=(14031,),
        pattern="space quota|out of disk space|no space left",
    ),
    ErrorRule(
        ConnectionConfigError,
        "authentication to MongoDB failed",
        "a login, its password and the authSource that has it (on Atlas: admin)",
        "Correct the connection's login and password; then trigger bi_doctor.",
        codes=(18, 8000),
        pattern="auth",
        both=True,
    ),
    ErrorRule(
        MongoConfigurationError,
        "the MongoDB account lacks privileges",
        "the role of include/mongo/role.json, on both databases",
        "Grant the account the role of include/mongo/role.json; bi_doctor lists the missing privileges.",
        codes=(13,),
        pattern="not authorized|not allowed to do action",
    ),
    ErrorRule(
        MongoConfigurationError,
        "a validator or unique index of the live collection rejected documents",
        "no validator and no unique index on the live collections",
        "Remove the index or the validator on the Atlas website, then clear this task.",
        codes=(11000, 121),
        pattern="^(?!.*index: _id_)",
        both=True,
    ),
    ErrorRule(
        MongoUnavailableError,
        "a transaction does not fit into MongoDB's cache, which holds it until its commit",
        "a gigabyte of cache for a transaction of 100,000 documents (a cluster of 4 GB)",
        "Retried automatically, which helps once other writes have gone to disk. If it persists, enlarge the cluster, "
        "and so its cache.",
        codes=(388,),
    ),
    ErrorRule(
        MongoUnavailableError,
        "a transaction took longer than MongoDB's transactionLifetimeLimitSeconds",
        "a transaction that ends within that time, by default 60 s",
        "Retried automatically. If it persists, check MongoDB's load and the network to it, or raise "
        "transactionLifetimeLimitSeconds (db.adminCommand with setParameter).",
        codes=(290,),
        pattern="transactionLifetimeLimitSeconds",
    ),
    ErrorRule(
        MongoConfigurationError,
        "this MongoDB is not a replica set, so it has no transactions",
        "a replica set (of one member at least), as every Atlas cluster is",
        "Start mongod with --replSet and run rs.initiate().",
        codes=(20,),
    ),
)
"""Errors of MongoDB's server.

https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
"""

ERROR_RULES = (*_CONNECTION_RULES, *_OPERATION_RULES, _UNUSABLE, _OTHER)
"""All rules, for the documents."""


@contextmanager
def translate_pymongo_errors(context: str) -> Iterator[None]:
    """Translate the driver's errors.

    Args:
        context: The slice and the connection.

    Raises:
        MongoUnavailableError: MongoDB cannot be reached, or an operation failed; a retry may help.
        ConnectionConfigError: The driver or MongoDB rejected the connection.
        MongoConfigurationError: The account lacks privileges, or the server or a collection does not meet the
            requirements.
        InvalidSourceRowError: A document is too large.
    """
    try:
        yield
    except ConnectionFailure as error:
        raise translate(error, context) from error
    except (InvalidDocument, PyMongoError) as error:
        raise translate(error, context) from None


def translate(error: InvalidDocument | PyMongoError, context: str) -> BiError:
    """The translation of one of the driver's errors; `translate_pymongo_errors` lists the classes."""
    return _rule_for(error).to_error(context, _summarize(error))


def _rule_for(error: InvalidDocument | PyMongoError) -> ErrorRule:
    if isinstance(error, InvalidDocument):
        return _TOO_LARGE
    if isinstance(error, ConfigurationError):
        return _UNREACHABLE if _is_dns_outage(error.__cause__) else _UNUSABLE
    if isinstance(error, ConnectionFailure):
        return find_rule(_CONNECTION_RULES, None, str(error), _UNREACHABLE)
    return find_rule(_OPERATION_RULES, error_code(error), _summarize(error), _OTHER)


def _is_dns_outage(error: BaseException | None) -> bool:
    """Whether a name could not be looked up, other than for not existing."""
    from dns.exception import DNSException  # noqa: PLC0415 - large, and rarely needed
    from dns.resolver import NXDOMAIN  # noqa: PLC0415

    return isinstance(error, DNSException) and not isinstance(error, NXDOMAIN)


def _summarize(error: BaseException) -> str:
    return f"{type(error).__name__}: {error_text(error)}"


def error_text(error: BaseException) -> str:
    """An error's text, without the driver's statistics and without the command, which holds data."""
    details: Any = getattr(error, "details", None) or {}
    text = str(error)
    if isinstance(error, BulkWriteError):
        problems = details.get("writeErrors") or details.get("writeConcernErrors") or [{}]
        text = str(problems[0].get("errmsg", "a write failed"))
    elif isinstance(details, dict) and "errmsg" in details:
        text = str(details["errmsg"])
    for end in (" to execute command {", " dup key:", ", Timeout:", "\n"):
        text = text.split(end)[0]
    return text[:_MAX_MESSAGE_LENGTH] or "no message"


def error_code(error: PyMongoError) -> int | None:
    """MongoDB's code of an error; that of the first failed write of a bulk."""
    if isinstance(error, BulkWriteError):
        return next((problem["code"] for problem in (error.details or {}).get("writeErrors", ())), error.code)
    return error.code if isinstance(error, OperationFailure) else None
