#!/bin/sh
# Chromium for the tests of the page: installed where it is missing and root may; else those tests are skipped.
set -eu
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "test: installing chromium, which the tests of the page look through"
    { apt-get -qq update && apt-get -qq install -y chromium; } >/dev/null 2>&1 || echo "test: apt-get could not install chromium"
else
    echo "test: no Chromium here, so the tests of the page are skipped: sudo apt-get install chromium"
fi
