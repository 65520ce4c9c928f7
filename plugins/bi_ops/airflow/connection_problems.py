"""Explains why an existing Airflow connection cannot be read or used; no message shows a connection's value.

Airflow itself reports a connection whose value it cannot read as missing.
https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import quote, urlsplit

from bi_ops.errors import ConnectionConfigError
from bi_ops.mongo.store import STAGING_SUFFIX

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)?://|//")
_TEXTS = ("conn_type", "description", "host", "schema", "login", "password")
_FIELDS = {*_TEXTS, "port", "extra"}
_OTHER_NAMES = {
    "user": "login",
    "username": "login",
    "database": "schema",
    "db": "schema",
    "dbname": "schema",
    "hostname": "host",
    "hosts": "host",
    "server": "host",
    "address": "host",
    "pass": "password",
    "passwd": "password",
    "pwd": "password",
    "secret": "password",
    "type": "conn_type",
    "conntype": "conn_type",
    "connectiontype": "conn_type",
    "extras": "extra",
    "options": "extra",
    "params": "extra",
}
"""Airflow's field names by the names in other tools, in lower case and without `_`."""
_SRV_NAMES = {"usesrv", "issrv", "mongodb+srv", "mongodbsrv", "srv"}
_FORBIDDEN_IN_DATABASE = re.compile(r"""[/\\."$*<>:|?%+\s\x00-\x1f]""")
"""Characters that MongoDB forbids in database names on any platform, and those with a meaning in a URI.

https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions
"""
_MAX_DATABASE_BYTES = 63
_SYSTEM_DATABASES = ("admin", "config", "local")
_MAX_NAMES = 4
_MAX_PORT = 65_535
_JSON = {
    "mongo": '{"conn_type": "mongo", "host": "...", "login": "...", "password": "...", "schema": "bi", '
    '"extra": {"tls": true}}',
    "postgres": '{"conn_type": "postgres", "host": "...", "port": 5432, "login": "...", "password": "...", '
    '"schema": "meg", "extra": {"sslmode": "verify-full"}}',
    "generic": '{"conn_type": "generic", "password": "..."}',
    "apprise": '{"conn_type": "apprise", "extra": {"config": {"path": "..."}}}',
}
_SEVERAL_HOSTS = {
    "mongo": '{"conn_type": "mongo", "host": "h1:27017,h2:27017", "login": "...", "password": "...", "schema": "bi", '
    '"extra": {"replicaSet": "rs0", "tls": true}}',
    "postgres": '{"conn_type": "postgres", "host": "h1,h2", "port": 5432, ...}, with the same port for all',
}


def find_value_problem(value: str, kind: str, context: str) -> ConnectionConfigError | None:
    """The reason why Airflow cannot read a connection's value, or misreads it; None if none is known.

    Args:
        value: The value of the variable or the secret: a URI or JSON.
        kind: The type that the connection must have.
        context: The connection and its source, for the error.
    """
    text = value.strip()
    if not text:
        return ConnectionConfigError(
            "the connection's value is empty",
            context=context,
            expected="a URI or JSON",
            hint=f"Set it, for example to {_JSON[kind]}, or remove it if the connection is stored elsewhere.",
        )
    if text[0] in _QUOTES:
        return ConnectionConfigError(
            "there are quotes around the connection's value",
            context=context,
            expected="a URI or JSON, without quotes around it",
            hint="Remove the quotes; files for --env-file and Kubernetes secrets keep them as part of the value.",
        )
    if text[0] == "{":
        return _json_problem(text, kind, context)
    return _uri_problem(text, kind, context)


def unreadable_value(kind: str, context: str) -> ConnectionConfigError:
    """The error for a value that Airflow cannot read, if the reason is unknown."""
    return ConnectionConfigError(
        "Airflow cannot read the connection's value",
        context=context,
        expected=f"a URI or JSON that makes a connection of type {kind}",
        hint=f"Write it as JSON: {_JSON[kind]}.",
    )


def find_field_problem(connection: Any, kind: str, context: str) -> ConnectionConfigError | None:
    """The problem of a connection's fields, as Airflow has read them; None if none is known.

    Args:
        connection: Airflow's connection.
        kind: The type that it must have.
        context: The connection, for the error.
    """
    fields = {name: getattr(connection, name, None) for name in _TEXTS}
    return (
        _text_problem(fields, context)
        or _type_problem(fields["conn_type"], kind, context)
        or _extra_problem(connection.extra, kind, context)
        or _host_problem(fields["host"] or "", kind, context)
    )


def find_database_problem(database: str, context: str) -> ConnectionConfigError | None:
    """The problem of the live or staging database's name under MongoDB's rules; None if both are valid.

    Args:
        database: The live database's name.
        context: The connection, for the error.
    """
    problem = actual = ""
    max_bytes = _MAX_DATABASE_BYTES - len(STAGING_SUFFIX)
    if match := _FORBIDDEN_IN_DATABASE.search(database):
        problem, actual = (
            "an invalid character",
            "a space" if match[0] == " " else match[0] if match[0].isprintable() else repr(match[0]),
        )
    elif len(database.encode()) > max_bytes:
        problem, actual = "too long", f"{len(database.encode())} bytes"
    elif database.lower() in _SYSTEM_DATABASES:
        problem, actual = "reserved by MongoDB", database
    if not problem:
        return None
    return ConnectionConfigError(
        f"invalid database name: {problem}",
        context=context,
        expected=f"at most {max_bytes} bytes ({_MAX_DATABASE_BYTES} with {STAGING_SUFFIX}), without spaces and "
        f'/ \\ . " $ * < > : | ? % +; not {", ".join(_SYSTEM_DATABASES)}',
        actual=actual,
        hint="Set another database name, such as bi, as the connection's schema.",
    )


def _json_problem(text: str, kind: str, context: str) -> ConnectionConfigError | None:
    try:
        fields = json.loads(text)
    except ValueError as error:
        return _not_json(text, error, kind, context)
    return (
        _unknown_fields(fields, context)
        or _text_problem(fields, context)
        or _port_problem(fields.get("port"), context)
        or _type_problem(fields.get("conn_type"), kind, context)
        or _extra_problem(fields.get("extra"), kind, context)
    )


def _not_json(text: str, error: ValueError, kind: str, context: str) -> ConnectionConfigError:
    if re.match(r"\{\s*'", text) or re.search(r"[:\[,]\s*(True|False|None)\b", text):
        return ConnectionConfigError(
            "the connection's value is a Python dictionary, not JSON",
            context=context,
            expected="JSON: names and strings in double quotes; true, false and null in lower case",
            hint=f"Write it as JSON: {_JSON[kind]}, for example with Python's json.dumps.",
        )
    line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
    return ConnectionConfigError(
        "the connection's value is not valid JSON",
        context=context,
        expected=f"JSON such as {_JSON[kind]}",
        actual=f"an error in line {line}, column {column}",
        hint="Check that position for a missing or extra comma, quote or brace.",
    )


def _unknown_fields(fields: dict[str, Any], context: str) -> ConnectionConfigError | None:
    unknown = sorted(set(fields) - _FIELDS)
    if not unknown:
        return None
    return ConnectionConfigError(
        "unknown fields in the connection's JSON",
        context=context,
        expected="only conn_type, host, port, login, password, schema, extra and description",
        actual=", ".join(map(_printable_name, unknown[:_MAX_NAMES])),
        hint=f"{'; '.join(map(_suggest_field, unknown[:_MAX_NAMES]))}. Airflow's names are login (not username) and "
        "schema (not database); a driver's options go into extra.",
    )


def _suggest_field(name: str) -> str:
    normalized = re.sub(r"[^a-z]", "", name.lower())
    fields = {**{field.replace("_", ""): field for field in _FIELDS}, **_OTHER_NAMES}
    if normalized in ("uri", "url"):
        return f"Write the URI alone as the value, without {_printable_name(name)} and braces"
    matches = [normalized] if normalized in fields else get_close_matches(normalized, fields, n=1, cutoff=0.8)
    if matches:
        return f"Rename {_printable_name(name)} to {fields[matches[0]]}"
    return f"Move {_printable_name(name)} into extra, or remove it"


def _printable_name(name: str) -> str:
    """The name, unless it may be a secret in the wrong place."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_+.-]{0,30}", name) else "(a hidden name)"


def _text_problem(fields: dict[str, Any], context: str) -> ConnectionConfigError | None:
    for name in _TEXTS:
        if not isinstance(fields.get(name), str | None):
            return ConnectionConfigError(
                f"the connection's field {name} is not a string",
                context=context,
                expected="a string in double quotes",
                actual=type(fields[name]).__name__,
                hint=f"Enclose the value of {name} in double quotes.",
            )
    return None


def _port_problem(port: Any, context: str) -> ConnectionConfigError | None:
    try:
        if port in (None, "") or (not isinstance(port, bool) and 0 < int(port) <= _MAX_PORT):
            return None
    except (TypeError, ValueError):
        pass
    return ConnectionConfigError(
        "the connection's port is not a number",
        context=context,
        expected=f"a number from 1 to {_MAX_PORT}",
        hint='Write the port as a number, such as "port": 27017; the database belongs in the field schema.',
    )


def _type_problem(conn_type: Any, kind: str, context: str) -> ConnectionConfigError | None:
    """Airflow's MongoDB hook accepts no other type; its PostgreSQL hook accepts any."""
    if kind != "mongo" or str(conn_type).lower() == kind:
        return None
    if "srv" in str(conn_type).lower():
        return _srv_problem(_printable_name(str(conn_type)), context)
    return ConnectionConfigError(
        "the connection's conn_type is not mongo",
        context=context,
        expected=f"conn_type mongo: a URI that starts with mongo://, or JSON such as {_JSON['mongo']}",
        actual=_printable_name(str(conn_type)),
        hint="Set conn_type to mongo; a URI starts with mongo://, not with mongodb://.",
    )


def _srv_problem(actual: str, context: str) -> ConnectionConfigError:
    return ConnectionConfigError(
        "unsupported option for an SRV record (mongodb+srv)",
        context=context,
        expected='conn_type mongo, and "srv": true in the extra',
        actual=actual,
        hint='Write mongo://login:password@cluster.ab1cd.mongodb.net/bi?srv=true, or in JSON "conn_type": "mongo" and '
        '"extra": {"srv": true}, without a port.',
    )


def _extra_problem(extra: Any, kind: str, context: str) -> ConnectionConfigError | None:
    if not extra:
        return None
    try:
        options = json.loads(extra) if isinstance(extra, str) else extra
    except ValueError:
        options = None
    if isinstance(options, dict):
        srv_names = [name for name in options if name != "srv" and name.lower().replace("_", "") in _SRV_NAMES]
        return _srv_problem(f"{srv_names[0]} in the extra", context) if kind == "mongo" and srv_names else None
    return ConnectionConfigError(
        "the connection's extra is not a JSON object",
        context=context,
        expected='a JSON object such as {"sslmode": "verify-full"} or {"tls": true}',
        actual="text that is not JSON" if options is None else type(options).__name__,
        hint="Correct the connection's extra.",
    )


def _host_problem(hosts: str, kind: str, context: str) -> ConnectionConfigError | None:
    """An IPv6 address needs brackets for MongoDB, where a port may follow it, and none for libpq."""
    if kind == "mongo" and any(map(_is_ipv6, hosts.split(","))):
        return _no_brackets(kind, context)
    if kind == "postgres" and any(host.startswith("[") for host in hosts.split(",")):
        return ConnectionConfigError(
            "the connection's host is an IPv6 address in brackets",
            context=context,
            expected="an address without brackets in JSON and in Airflow's UI; only a URI has brackets",
            hint='Write it as "host": "::1".',
        )
    return None


def _no_brackets(kind: str, context: str) -> ConnectionConfigError:
    return ConnectionConfigError(
        "the connection's host is an IPv6 address without brackets",
        context=context,
        expected='"host": "[::1]" in JSON' if kind == "mongo" else "brackets in a URI, as in [::1]:5432",
        hint='Write the connection as JSON with brackets, as in "host": "[::1]"; Airflow removes those of a URI.'
        if kind == "mongo"
        else 'Write [::1] in the URI, or the connection as JSON with "host": "::1".',
    )


def _is_ipv6(host: str) -> bool:
    """Whether a host is an IPv6 address without brackets, with or without a port."""
    for address in (host, host.rpartition(":")[0]):
        try:
            IPv6Address(address.partition("%")[0])
        except ValueError:
            continue
        return True
    return False


def _uri_problem(text: str, kind: str, context: str) -> ConnectionConfigError | None:
    scheme = _SCHEME.match(text)
    if not scheme:
        return ConnectionConfigError(
            "the connection's value is neither a URI nor JSON",
            context=context,
            expected=f"{kind}://login:password@host:port/schema, or {_JSON[kind]}",
            hint="Write it as JSON, where no character needs encoding.",
        )
    rest = text[scheme.end() :]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    return (
        _special_character(authority, rest[len(authority) :], kind, context)
        or _type_problem(scheme[1], kind, context)
        or _authority_problem(authority.rpartition("@")[2], kind, context)
        or _other_uri_problem(text, kind, context)
    )


def _special_character(authority: str, rest: str, kind: str, context: str) -> ConnectionConfigError | None:
    """A character that ends a URI's login, password or database too early, or that is not allowed in them."""
    user_info = authority.rpartition("@")[0]
    path, _, query = rest.partition("?")
    char = next((bracket for bracket in user_info if bracket in "[]"), "")
    if "#" in rest:
        char = "#"
    elif re.search("@.*[:/]" if user_info else "@", path):
        char = "/"
    elif "@" in query and ("=" not in query.partition("@")[0] or not (user_info or path)):
        char = "?"
    if not char:
        return None
    return ConnectionConfigError(
        f"unencoded character {char} in the connection's URI",
        context=context,
        expected="special characters in login, password and database percent-encoded",
        hint=f"Write {quote(char, safe='')} for {char} (and %40 for a further @), or write the connection as JSON, "
        f"where nothing is encoded: {_JSON[kind]}.",
    )


def _authority_problem(host: str, kind: str, context: str) -> ConnectionConfigError | None:
    """The problem of a URI's host and port, if there is one."""
    if "," in host and ":" in host.rpartition(",")[0]:
        return ConnectionConfigError(
            "several hosts with a port each in the connection's URI, which Airflow cannot read",
            context=context,
            expected="one host in a URI, or JSON",
            hint=f"Write the connection as JSON: {_SEVERAL_HOSTS.get(kind, _JSON[kind])}.",
        )
    if host.startswith("["):
        return _port_problem(host.rpartition("]")[2].removeprefix(":"), context)
    if _is_ipv6(host):
        return _no_brackets(kind, context)
    return _port_problem(host.partition(":")[2], context)


def _other_uri_problem(text: str, kind: str, context: str) -> ConnectionConfigError | None:
    try:
        unsupported = text.count("://") > 2 or urlsplit(text).port == -1  # noqa: PLR2004 - Airflow's own limit
    except ValueError:
        unsupported = True
    return unreadable_value(kind, context) if unsupported else None
