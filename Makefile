# Each command sets itself up first. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run up doctor report atlas test test-fast chaos bench bench-workers compare compat mwaa check audit format docs pins clean
PYTHON ?= python3
export PYTHON
BIN := .venv/bin
# Each process has databases of its own, and runs whole files.
SIDE_BY_SIDE := --numprocesses=2 --dist=loadfile --no-loadscope-reorder

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.ready: requirements.txt dev/requirements.txt dev/tools.txt dev/setup.sh
	@dev/setup.sh

setup: .venv/.ready  ## make .venv with all that development needs

run: .venv/.ready  ## run the last three months for real, on embedded databases, and print what was published
	@$(BIN)/python -m dev run

up: .venv/.ready  ## the same, then keep Airflow's UI up until Ctrl-C
	@$(BIN)/python -m dev up

doctor: .venv/.ready  ## examine what the AIRFLOW_CONN_ connections of the environment lead to, else the embedded stack
	@PYTHONPATH=plugins $(BIN)/python -m dev doctor

report: .venv/.ready  ## write the dashboard as one HTML page and PNGs into dist/report/
	@PYTHONPATH=plugins $(BIN)/python -m dev report

atlas: .venv/.ready  ## write the dashboard for Atlas Charts into dist/meg-bi.charts
	@PYTHONPATH=plugins $(BIN)/python -m dev atlas

test: .venv/.ready  ## run every test but the fault injection, on real databases and a real scheduler
	@dev/programs.sh
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) --ignore=tests/chaos

test-fast: .venv/.ready  ## run the tests that need no server and no Airflow process: under a minute
	@$(BIN)/python -m pytest -m fast

chaos: .venv/.ready  ## inject hundreds of faults, and print a table of them and of their effects
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/chaos --all-faults -v

.venv/.bench-ready: .venv/.ready bench/requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r bench/requirements.txt && touch $@

bench: .venv/.bench-ready  ## what it costs, as ratios beside their goals; QUICK=1 for a few minutes, ONLY=path,meg for some
	@PYTHONPATH=plugins AIRFLOW_HOME=$(CURDIR)/.local/bench/airflow AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING \
		PYTHONWARNINGS="ignore:pyarrow.lib" $(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

bench-workers: .venv/.ready  ## how a month of 20,000 forms divides over 1, 2 and 4 workers: about 15 minutes
	@PYTHONPATH=plugins $(BIN)/python -m bench.celery_scaling

compare: .venv/.ready  ## hold an old collection against ours: make compare SLICE="monthly_submissions eu 2026-10"
	@PYTHONPATH=plugins $(BIN)/python -m dev.compare $(SLICE)

mwaa: .venv/.ready  ## build what Amazon MWAA takes into dist/mwaa/; AIRFLOW=3.2.1 names its version
	@AIRFLOW="$(AIRFLOW)" $(BIN)/python -m dev.mwaa

compat: .venv/.ready  ## run all DAGs on each supported version of Airflow, and compare the figures: 6 to 10 minutes
	@PYTHONPATH=plugins $(BIN)/python -m dev.airflow_compat

check: .venv/.ready  ## format, lint, types, generated documents
	@dev/check.sh

audit: .venv/.ready  ## hold every pinned version against the known vulnerabilities; needs pypi.org's own API
	@$(BIN)/uv tool run --quiet "$$(grep '^pip-audit==' dev/tools.txt)" --strict --disable-pip --no-deps -r dev/requirements.txt

format: .venv/.ready  ## reformat the code and apply the safe lint fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: .venv/.ready  ## write the tables of jobs and of messages, and the page of each collection
	@PYTHONPATH=plugins $(BIN)/python -m dev.generate_docs

pins: .venv/.ready  ## resolve dev/requirements.in and dev/compat/*.in into files with every version pinned
	@dev/pins.sh

clean:  ## remove the environment, all local state and what was made in dist/
	@rm -rf .venv .local dist
