# Each command sets itself up first. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run up test check format docs pins clean
PYTHON ?= python3
export PYTHON
BIN := .venv/bin

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.ready: requirements.txt dev/requirements.txt dev/tools.txt dev/setup.sh
	@dev/setup.sh

setup: .venv/.ready  ## make .venv with all that development needs

run: .venv/.ready  ## run the last three months for real, on embedded databases, and print what was published
	@$(BIN)/python -m dev run

up: .venv/.ready  ## the same, then keep Airflow's UI up until Ctrl-C
	@$(BIN)/python -m dev up

test: .venv/.ready  ## run every test on real databases and a real scheduler
	@$(BIN)/python -m pytest

check: .venv/.ready  ## format, lint, types, generated documents
	@dev/check.sh

format: .venv/.ready  ## reformat the code and apply the safe lint fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: .venv/.ready  ## write the README's table of jobs and the page of each collection
	@PYTHONPATH=plugins $(BIN)/python -m dev.document

pins: .venv/.ready  ## resolve dev/requirements.in into dev/requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-emit-index-url \
	    --no-annotate dev/requirements.in -o dev/requirements.txt

clean:  ## remove the environment and all local state
	@rm -rf .venv .local
