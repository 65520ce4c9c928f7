#!/bin/sh
# Creates .venv with everything that development needs. Requires only Python 3.10 or later.
set -eu
cd "$(dirname "$0")/.."

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || die "no '$python' on the PATH; install Python 3.10 or later, or name one: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$("$python" --version) is too old; Python 3.10 or later is needed: make PYTHON=/path/to/python3"

# Debian and Ubuntu keep ensurepip in a separate package: root gets it installed, other users see its name.
if ! "$python" -c 'import ensurepip' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "setup: installing $version, which '$python -m venv' needs"
        { apt-get -qq update && apt-get -qq install -y "$version"; } >/dev/null 2>&1 || die "apt-get could not install $version"
    else
        die "'$python -m venv' needs the package $version: sudo apt-get install $version"
    fi
fi

echo "setup: making .venv with $("$python" --version)"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep '^uv==' dev/tools.txt)"
.venv/bin/uv pip install --quiet --python .venv/bin/python -r dev/requirements.txt

# The embedded MongoDB is linked against the system's libcurl, which a bare machine may lack.
mongod=$(find .venv/lib -path '*fiftyone/db/bin/mongod' | head -n 1)
if [ -n "$mongod" ] && [ -z "${BI_DEV_MONGO:-}" ]; then
    chmod +x "$mongod"
    missing=$(ldd "$mongod" | awk '/not found/ {print $1}')
    case $missing in
        '') ;;
        *libcurl*)
            if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
                echo "setup: installing libcurl4, which the embedded MongoDB needs"
                { apt-get -qq update && apt-get -qq install -y libcurl4; } >/dev/null 2>&1 || die "apt-get could not install libcurl4"
            else
                die "the embedded MongoDB needs libcurl4: sudo apt-get install libcurl4 (or name a server of yours in BI_DEV_MONGO: docs/configuration.md)"
            fi ;;
        *) die "the embedded MongoDB lacks $missing on this system; name a server of yours in BI_DEV_MONGO (docs/configuration.md)" ;;
    esac
fi
touch .venv/.ready
