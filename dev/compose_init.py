"""Prepares the services of docker-compose.yaml: `python -m dev.compose_init keys|mongo|meg|welcome`.

Passwords, certificates and keys are generated at the first start and kept in one volume for each service.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import trustme

from dev import airflow, demo_meg, demo_regions, embedded_stack, mongo
from dev.mongo import Mongo
from dev.postgres import Postgres
from dev.processes import StackError, write_secret

SECRETS_DIR = Path("/keys")
"""The folder of the keys' volumes: everything is in `own`, and each service's part in a folder of its name."""
_CA = "ca.pem"
_SERVER_UID, _AIRFLOW_UID, _MONGO_EXPRESS_UID = 999, 50_000, 1000
"""The users of the images: postgres, mongo and redis; apache/airflow; mongo-express."""
_TIMEOUT_SECONDS = 900


def _postgres(ca: Path) -> Postgres:
    options = {"sslmode": "verify-full", "sslrootcert": str(ca)}
    return Postgres(
        "postgres",
        5432,
        "postgres",
        embedded_stack.load_or_create_secrets(SECRETS_DIR / "own")["postgres"],
        options=options,
    )


def _mongo(ca: Path, host: str = "mongo", **extra: str) -> Mongo:
    options = {"authSource": "admin", "tls": True, "tlsCAFile": str(ca), **extra}
    return Mongo(host, 27017, mongo.ADMIN, embedded_stack.load_or_create_secrets(SECRETS_DIR / "own")["mongo"], options)


def init_secrets() -> None:
    """Generate the secrets that are missing, and write each service's own into its volume."""
    secret = embedded_stack.load_or_create_secrets(SECRETS_DIR / "own")
    if not (SECRETS_DIR / "own" / "done").exists():
        _make_certificates()
    ca = (SECRETS_DIR / "own" / _CA).read_text()
    _write_secrets("postgres", _SERVER_UID, {"password": secret["postgres"]})
    _write_secrets("mongo", _SERVER_UID, {_CA: ca})
    _write_secrets("redis", _SERVER_UID, {"redis.conf": f"requirepass {secret['redis']}\n"})
    passwords = {airflow.LOGIN: secret["ui"]}
    _write_secrets(
        "airflow",
        _AIRFLOW_UID,
        {_CA: ca, "airflow.env": _airflow_exports(secret), "passwords.json": json.dumps(passwords)},
    )
    environment = {
        "ME_CONFIG_MONGODB_URL": f"mongodb://viewer:{secret['viewer']}@mongo:27017/?authSource=admin",
        "ME_CONFIG_SITE_COOKIESECRET": secrets.token_hex(16),
        "ME_CONFIG_SITE_SESSIONSECRET": secrets.token_hex(16),
    }
    _write_secrets("mongo-express", _MONGO_EXPRESS_UID, {_CA: ca, "mongo-express.env": _exports(environment)})


def _make_certificates() -> None:
    authority = trustme.CA(organization_name="MEG BI, for development")
    server = authority.issue_cert("postgres", "mongo", "localhost", "127.0.0.1")
    certificate = "".join(pem.bytes().decode() for pem in server.cert_chain_pems)
    key = server.private_key_pem.bytes().decode()
    _write_secrets("own", os.getuid(), {_CA: authority.cert_pem.bytes().decode()})
    _write_secrets("postgres", _SERVER_UID, {"server.crt": certificate, "server.key": key})
    _write_secrets("mongo", _SERVER_UID, {"server.pem": key + certificate, "members.key": secrets.token_hex(64)})
    (SECRETS_DIR / "own" / "done").touch()


def _write_secrets(service: str, owner: int, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        file = SECRETS_DIR / service / name
        write_secret(file, text)
        shutil.chown(file, owner, 0)


def _airflow_exports(secret: Mapping[str, str]) -> str:
    """The secret part of Airflow's environment: connections, keys, its metadata database, Celery's broker."""
    ca = SECRETS_DIR / "airflow" / _CA
    admin = _mongo(ca, replicaSet=mongo.REPLICA_SET)
    writer = replace(admin, login=embedded_stack.WRITER_USER, password=secret["writer"])
    servers = embedded_stack.DatabaseServers(_postgres(ca), writer, admin, secret)
    account = f"{airflow.METADATA_DATABASE}:{secret['airflow']}"
    metadata = f"{account}@postgres/{airflow.METADATA_DATABASE}?sslmode=verify-full&sslrootcert={ca}"
    return _exports(
        {
            **servers.connections(demo_regions.DEMO_DATABASES),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{metadata}",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{metadata}",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://:{secret['redis']}@redis:6379/0",
            "AIRFLOW__CORE__FERNET_KEY": secret["fernet"],
            "AIRFLOW__API__SECRET_KEY": secret["session"],
            "AIRFLOW__API_AUTH__JWT_SECRET": secret["jwt"],
        }
    )


def _exports(variables: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def init_mongo() -> None:
    """Make the MongoDB server a replica set with its accounts; runs in the server's own network namespace."""
    secret = embedded_stack.load_or_create_secrets(SECRETS_DIR / "own")
    server = _mongo(SECRETS_DIR / "own" / _CA, "localhost")
    _wait_until(lambda: mongo.answers(server), "MongoDB does not answer")
    mongo.init_replica_set(server, "mongo:27017")
    _wait_until(lambda: mongo.is_primary(server), "MongoDB has not elected a primary")
    mongo.ensure_admin_user(server)
    mongo.ensure_writer_user(server, embedded_stack.WRITER_USER, secret["writer"])
    mongo.ensure_account(server, "viewer", secret["viewer"], ["readAnyDatabase", "clusterMonitor"])


def init_meg() -> None:
    """Create both regions' MEG with demo data, the role that reads them, and Airflow's own database."""
    secret = embedded_stack.load_or_create_secrets(SECRETS_DIR / "own")
    server = _postgres(SECRETS_DIR / "own" / _CA)
    server.ensure_role(demo_meg.READER_ROLE, secret["reader"])
    demo_regions.seed(server)
    airflow.ensure_database(server, secret["airflow"])


def print_urls() -> None:
    """Print the URLs and logins of the user interfaces."""
    secret = embedded_stack.load_or_create_secrets(SECRETS_DIR / "own")
    port = os.environ.get("BI_UI_PORT") or airflow.UI_PORT
    print(f"Airflow:       http://localhost:{port}   login: {airflow.LOGIN}   password: {secret['ui']}")
    port = os.environ.get("BI_MONGO_EXPRESS_PORT") or 8081
    print(f"mongo-express: http://localhost:{port}   login: admin   password: password", flush=True)


def _wait_until(ready: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise StackError(f"{problem} within {_TIMEOUT_SECONDS} s.")
        time.sleep(0.2)


_STEPS = {"keys": init_secrets, "mongo": init_mongo, "meg": init_meg, "welcome": print_urls}

if __name__ == "__main__":
    _STEPS[sys.argv[1]]()
