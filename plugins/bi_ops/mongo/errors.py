"""What pymongo says when MongoDB fails, in the pipeline's words: what is wrong, and whether another try may help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    ConnectionConfigError,
    InvalidSourceRowError,
    MongoConfigurationError,
    MongoUnavailableError,
)

_CERTIFICATE_ERROR = re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|doesn't match|not valid for")
_NO_SUCH_NAME = re.compile(r"Name or service not known|nodename nor servname|No address associated")
_TOO_LARGE = re.compile(r"object to insert too large|BSONObj size", re.IGNORECASE)
_ATLAS = ".mongodb.net"
"""In the name of every Atlas server, which the driver puts before what went wrong with it."""
_MAX_MESSAGE_LENGTH = 300


@dataclass(frozen=True)
class Rule:
    """What to say of one kind of error.

    Attributes:
        error: The error to raise.
        message: What is wrong.
        expected: What would have been right.
        hint: What to do.
        codes: MongoDB's codes for it.
        pattern: What MongoDB says of it.
        both: Whether the code and the text must fit, or one of them is enough.
    """

    error: type[BiError]
    message: str
    expected: str
    hint: str
    codes: tuple[int, ...] = ()
    pattern: str = "$^"
    both: bool = False

    def fits(self, code: int | None, text: str) -> bool:
        """Whether an error with this code and text is of this kind."""
        by_code, by_text = code in self.codes, bool(re.search(self.pattern, text, re.IGNORECASE))
        return by_code and by_text if self.both else by_code or by_text


ERROR_RULES = (
    Rule(
        MongoUnavailableError,
        "MongoDB has no room left",
        "room for a second copy of what a load stages",
        "Make room or enlarge the cluster; nothing that is live was touched. Staged data is deleted after 30 days.",
        codes=(14031,),
        pattern="space quota|out of disk space|no space left",
    ),
    Rule(
        ConnectionConfigError,
        "authentication to MongoDB failed",
        "a login, its password and the authSource where it is known (on Atlas: admin)",
        "Correct the connection's login and password; then trigger bi_doctor.",
        codes=(18, 8000),
        pattern="auth",
        both=True,
    ),
    Rule(
        MongoConfigurationError,
        "the MongoDB account lacks privileges",
        "the role of include/mongo/role.json, on the two databases",
        "Give the account that role; bi_doctor names what is missing.",
        codes=(13,),
        pattern="not authorized|not allowed to do action",
    ),
    Rule(
        MongoConfigurationError,
        "a validator or unique index of the live collection rejected documents",
        "no unique index and no validation beyond what the pipeline writes",
        "Remove the index or the validation on the Atlas website, then clear this task.",
        codes=(11000, 121),
        pattern="^(?!.*index: _id_)",
        both=True,
    ),
    Rule(
        MongoUnavailableError,
        "a transaction does not fit into MongoDB's cache, in which it is kept until it is committed",
        "a gigabyte of cache for a transaction of 100,000 documents (a cluster of 4 GB)",
        "Retried automatically, which helps when other writes have gone to disk. If it persists, enlarge the "
        "cluster, and so its cache.",
        codes=(388,),
    ),
    Rule(
        MongoUnavailableError,
        "a transaction took longer than MongoDB's transactionLifetimeLimitSeconds",
        "a transaction that ends within that time, by default 60 s",
        "Retried automatically. If it persists, look at MongoDB's load and at the network to it, or raise "
        "transactionLifetimeLimitSeconds (db.adminCommand with setParameter).",
        codes=(290,),
        pattern="transactionLifetimeLimitSeconds",
    ),
    Rule(
        MongoConfigurationError,
        "this MongoDB is not a replica set, so it has no transactions",
        "a replica set (of one member at least), as every Atlas cluster is",
        "Start mongod with --replSet and run rs.initiate().",
        codes=(20,),
    ),
)
"""What is said of MongoDB's errors, by code or text: of the first rule that fits.

https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
"""
DEFAULT_RULE = Rule(
    MongoUnavailableError,
    "MongoDB operation failed",
    "",
    "Retried automatically. If it persists, look at the server's log.",
)


@contextmanager
def translate_pymongo_errors(context: str) -> Iterator[None]:
    """Turn the driver's errors into the pipeline's own.

    Args:
        context: The slice and the connection.

    Raises:
        MongoUnavailableError: MongoDB cannot be reached, or failed; another try may help.
        ConnectionConfigError: MongoDB will not have the connection.
        MongoConfigurationError: The account may not do what the pipeline needs, or the server is no replica set.
        InvalidSourceRowError: A document is too large.
    """
    try:
        yield
    except ConnectionFailure as error:
        raise translate(error, context) from error
    except (InvalidDocument, PyMongoError) as error:
        raise translate(error, context) from None


def translate(error: InvalidDocument | PyMongoError, context: str) -> BiError:
    """The pipeline's own error for one of the driver's; its causes are those of `translate_pymongo_errors`."""
    if isinstance(error, ConfigurationError):
        return _unusable(error, context)
    if isinstance(error, ConnectionFailure):
        return _unreachable(error, context)
    if isinstance(error, InvalidDocument) or _TOO_LARGE.search(_summarize(error)):
        return _too_large(error, context)
    return _refusal(error, context)


def _unusable(error: ConfigurationError, context: str) -> BiError:
    if isinstance(error.__cause__, DNSException) and not isinstance(error.__cause__, NXDOMAIN):
        return _unavailable(error, context)
    return ConnectionConfigError(
        "the MongoDB driver cannot use this connection",
        context=context,
        expected="host, login and password in fields of their own, and the driver's options in the extra",
        actual=_summarize(error),
        hint="Correct the connection; the options are those of "
        "https://www.mongodb.com/docs/manual/reference/connection-string-options/.",
    )


def _too_large(error: Exception, context: str) -> BiError:
    return InvalidSourceRowError(
        "a document cannot be stored",
        context=context,
        expected="at most 16 MB",
        actual=_summarize(error),
        hint="Find the row with psql and correct it in MEG, or cut the text in the job's SQL.",
    )


def _unreachable(error: PyMongoError, context: str) -> BiError:
    """Atlas answers an address that is not on its access list with silence, or by breaking the TLS handshake off."""
    text = str(error)
    if _CERTIFICATE_ERROR.search(text):
        return ConnectionConfigError(
            "MongoDB's certificate cannot be trusted",
            context=context,
            expected='a certificate for this host, of an authority that "tlsCAFile" or this machine knows',
            actual=_summarize(error),
            hint="Put the authority's certificate into a file and name it as \"tlsCAFile\" in the connection's extra.",
        )
    if _ATLAS in text and not _NO_SUCH_NAME.search(text):
        return MongoUnavailableError(
            "Atlas does not answer this address",
            context=context,
            expected="this machine's public address on the project's IP access list, and a cluster that is not paused",
            actual=_summarize(error),
            hint="Add the address under Security, Network Access on the Atlas website (on MWAA and Astronomer: the NAT "
            "gateway's), or resume the cluster.",
        )
    return _unavailable(error, context)


def _unavailable(error: PyMongoError, context: str) -> BiError:
    return MongoUnavailableError(
        "MongoDB cannot be reached",
        context=context,
        expected="a replica set that is up and has a primary",
        actual=_summarize(error),
        hint="Check that the server is up and can be reached from here, and the connection's host, port and tls.",
    )


def _refusal(error: PyMongoError, context: str) -> BiError:
    text = _summarize(error)
    rule = next((rule for rule in ERROR_RULES if rule.fits(error_code(error), text)), DEFAULT_RULE)
    return rule.error(rule.message, context=context, expected=rule.expected, actual=text, hint=rule.hint)


def _summarize(error: BaseException) -> str:
    return f"{type(error).__name__}: {error_text(error)}"


def error_text(error: BaseException) -> str:
    """What an error says, without the command that it repeats, which holds data, and the driver's statistics."""
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
