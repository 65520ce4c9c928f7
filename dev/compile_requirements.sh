#!/bin/sh
# Pins every version of the development requirements, and of each older Airflow that `make compat` runs.
set -eu
cd "$(dirname "$0")/.."
compile() { .venv/bin/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-emit-index-url --no-annotate "$@"; }
compile dev/requirements.in -o dev/requirements.txt
compile bench/requirements.in -c dev/requirements.txt -o bench/requirements.txt
for source in dev/airflow_pins/*.in; do
    # shellcheck disable=SC2046 - several options
    compile "$source" -o "${source%.in}.txt" $(sed -n '2s/^# //p' "$source")
done
