#!/bin/sh
# Everything that can be checked without running it; changes nothing (`make format` does).
set -eu
cd "$(dirname "$0")/.."
echo "format"; .venv/bin/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
echo "lint";   .venv/bin/ruff check --quiet .
echo "documents"; PYTHONPATH=plugins .venv/bin/python -m dev.document --check
echo "types";  .venv/bin/mypy --no-error-summary
