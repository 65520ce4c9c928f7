#!/bin/sh
# Runs every static check. It changes no file; `make format` does.
set -eu
cd "$(dirname "$0")/.."
echo "format"; .venv/bin/ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
echo "lint";   .venv/bin/ruff check --quiet .
echo "spelling"; .venv/bin/codespell -D - -D dev/dialect.txt
echo "documents"; PYTHONPATH=plugins .venv/bin/python -m dev.generate_docs --check
echo "types";  .venv/bin/mypy --no-error-summary
echo "layers"; PYTHONPATH=plugins .venv/bin/lint-imports --no-logo --no-cache >/dev/null || { PYTHONPATH=plugins .venv/bin/lint-imports --no-logo --no-cache; exit 1; }
