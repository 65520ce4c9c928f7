"""What pymongo says when MongoDB fails, in the pipeline's words: what is wrong, and whether another try may help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson.errors import InvalidDocument
from dns.exception import DNSException
from dns.resolver import NXDOMAIN
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
)

from bi_ops.errors import (
    BiError,
    ConnectionSettingsError,
    MongoRefusedError,
    MongoUnavailableError,
    SourceRowError,
)

_UNAUTHORISED, _NO_REPLICA_SET = 13, 20
_BAD_LOGIN = (18, 8000)
_DISK_FULL = re.compile(r"space quota|out of disk space|no space left", re.IGNORECASE)
_OUT_OF_DISK_SPACE = 14031
_TOO_LARGE_FOR_CACHE = 388
_UNCHECKABLE = re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|doesn't match|not valid for")
_NO_SUCH_NAME = re.compile(r"Name or service not known|nodename nor servname|No address associated")
_NOT_ALLOWED = re.compile(r"not authorized|not allowed to do action")
_BY_SOMEBODY = (11000, 121)
"""A unique index, or a rule that documents must keep, that somebody made on a live collection."""
_TOO_LARGE = re.compile(r"object to insert too large|BSONObj size", re.IGNORECASE)
_ATLAS = ".mongodb.net"
"""In the name of every Atlas server, which the driver puts before what went wrong with it."""
_LONGEST = 300


@contextmanager
def store_errors_told(where: str) -> Iterator[None]:
    """Turn the driver's errors into the pipeline's own.

    Args:
        where: The slice and the connection.

    Raises:
        MongoUnavailableError: MongoDB cannot be reached, or failed; another try may help.
        ConnectionSettingsError: MongoDB will not have the connection.
        MongoRefusedError: The account may not do what the pipeline needs, or the server is no replica set.
        SourceRowError: A document is too large.
    """
    try:
        yield
    except BiError:
        raise
    except ConfigurationError as error:
        cause = error.__cause__
        if isinstance(cause, DNSException) and not isinstance(cause, NXDOMAIN):
            raise _down(error, where) from None
        raise ConnectionSettingsError(
            "the MongoDB driver cannot use this connection",
            where=where,
            expected="host, login and password in fields of their own, and the driver's options in the extra",
            found=_brief(error),
            cure="Mend the connection; the options are those of "
            "https://www.mongodb.com/docs/manual/reference/connection-string-options/.",
        ) from None
    except ConnectionFailure as error:
        raise _unreachable(error, where) from error
    except InvalidDocument as error:
        raise _too_large(error, where) from None
    except PyMongoError as error:
        if _TOO_LARGE.search(_brief(error)):
            raise _too_large(error, where) from None
        raise _refusal(error, where) from None


def _too_large(error: Exception, where: str) -> BiError:
    return SourceRowError(
        "a document cannot be stored",
        where=where,
        expected="at most 16 MB",
        found=_brief(error),
        cure="Find the row with psql and mend it in MEG, or cut the text in the job's SQL.",
    )


def _unreachable(error: PyMongoError, where: str) -> BiError:
    """Atlas answers an address that is not on its access list with silence, or by breaking the TLS handshake off."""
    text = str(error)
    if _UNCHECKABLE.search(text):
        return ConnectionSettingsError(
            "MongoDB's certificate cannot be trusted",
            where=where,
            expected='a certificate for this host, of an authority that "tlsCAFile" or this machine knows',
            found=_brief(error),
            cure="Put the authority's certificate into a file and name it as \"tlsCAFile\" in the connection's extra.",
        )
    if _ATLAS in text and not _NO_SUCH_NAME.search(text):
        return MongoUnavailableError(
            "Atlas does not answer this address",
            where=where,
            expected="this machine's public address on the project's IP access list, and a cluster that is not paused",
            found=_brief(error),
            cure="Add the address under Security, Network Access on the Atlas website (on MWAA and Astronomer: the NAT "
            "gateway's), or resume the cluster.",
        )
    return _down(error, where)


def _down(error: PyMongoError, where: str) -> BiError:
    return MongoUnavailableError(
        "MongoDB cannot be reached",
        where=where,
        expected="a replica set that is up and has a primary",
        found=_brief(error),
        cure="Check that the server is up and can be reached from here, and the connection's host, port and tls.",
    )


def _refusal(error: PyMongoError, where: str) -> BiError:  # noqa: PLR0911 - one for each kind of refusal
    code = error_code(error)
    text = _brief(error)
    if code == _OUT_OF_DISK_SPACE or _DISK_FULL.search(text):
        return MongoUnavailableError(
            "MongoDB has no room left",
            where=where,
            expected="room for a second copy of what a load stages",
            found=text,
            cure="Make room or enlarge the cluster; nothing that is live was touched. What is staged goes in 30 days.",
        )
    if code in _BAD_LOGIN and "auth" in text.lower():
        return ConnectionSettingsError(
            "MongoDB does not let this account in",
            where=where,
            expected="a login, its password and the authSource where it is known (on Atlas: admin)",
            found=text,
            cure="Mend the connection's login and password; bi_doctor tells whether all is well.",
        )
    if code == _UNAUTHORISED or _NOT_ALLOWED.search(text):
        return MongoRefusedError(
            "MongoDB does not let this account do what the pipeline needs",
            where=where,
            expected="the role of include/mongo/role.json, on the two databases",
            found=text,
            cure="Give the account that role; bi_doctor names what is missing.",
        )
    if code in _BY_SOMEBODY and "index: _id_" not in text:
        return MongoRefusedError(
            "a rule of the live collection refuses these documents",
            where=where,
            expected="no unique index and no validation beyond what the pipeline writes",
            found=text,
            cure="Take the rule away on the Atlas website, then clear this task.",
        )
    if code == _TOO_LARGE_FOR_CACHE:
        return MongoUnavailableError(
            "a slice does not fit into MongoDB's cache, in which a transaction is kept until it is committed",
            where=where,
            expected="a gigabyte of cache for a slice of 100,000 documents (a cluster of 4 GB)",
            found=text,
            cure="Nothing if a retry heals it, when other writes have gone to disk; else enlarge the cluster.",
        )
    if code == _NO_REPLICA_SET:
        return MongoRefusedError(
            "this MongoDB is not a replica set, so it has no transactions",
            where=where,
            expected="a replica set (of one member at least), as every Atlas cluster is",
            found=text,
            cure="Start mongod with --replSet and run rs.initiate().",
        )
    return MongoUnavailableError(
        "MongoDB did not do what it was asked",
        where=where,
        found=text,
        cure="Nothing if a retry heals it; else look at the server's log.",
    )


def _brief(error: BaseException) -> str:
    """What an error says, without the command that it repeats, which holds data, and the driver's statistics."""
    details: Any = getattr(error, "details", None) or {}
    text = str(error)
    if isinstance(error, BulkWriteError):
        problems = details.get("writeErrors") or details.get("writeConcernErrors") or [{}]
        text = str(problems[0].get("errmsg", "a write failed"))
    elif isinstance(details, dict) and "errmsg" in details:
        text = str(details["errmsg"])
    text = (
        text.split(" to execute command {")[0].split(" dup key:")[0].split(", Timeout:")[0].splitlines()[0]
        if text
        else "no message"
    )
    return f"{type(error).__name__}: {text[:_LONGEST]}"


def error_code(error: PyMongoError) -> int | None:
    """MongoDB's code of an error; that of the first failed write of a bulk."""
    if isinstance(error, BulkWriteError):
        return next((problem["code"] for problem in (error.details or {}).get("writeErrors", ())), error.code)
    return error.code if isinstance(error, OperationFailure) else None
