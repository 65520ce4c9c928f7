#!/bin/sh
# Installs the programs that some tests need and that are missing; without root those tests are skipped, with a message.
set -eu
missing=
have() { for name in "$@"; do command -v "$name" >/dev/null 2>&1 && return; done; return 1; }
have chromium chromium-browser google-chrome || missing="$missing chromium"
have firefox-esr firefox || missing="$missing firefox-esr"
docker compose version >/dev/null 2>&1 || have docker-compose || missing="$missing docker-compose"
have npm || missing="$missing npm"
have curl || missing="$missing curl"
have wget || missing="$missing wget"
have pgbouncer /usr/sbin/pgbouncer || missing="$missing pgbouncer"
have ip || missing="$missing iproute2"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >/dev/null 2>&1 || true
    for package in $missing; do # one by one: a package that this system lacks must not prevent the others
        echo "test: installing $package"
        problem=$(apt-get -qq install -y --no-install-recommends "$package" </dev/null 2>&1) ||
            echo "test: apt-get could not: $(printf '%s' "$problem" | tail -n 1)"
    done
else
    echo "test: missing programs, so the tests that need them are skipped. Hint: sudo apt-get install$missing"
fi
