# Each command sets itself up first. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run up doctor report atlas test test-fast chaos compose-test bench bench-sizing bench-workers compare compat mwaa check audit format docs pins release sizing clean
PYTHON ?= python3
export PYTHON
# Else each process of Airflow compiles what it imports: three seconds that bytecode saves.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
# More processes than two cores, because a test run waits more than it computes. Each has databases of its own.
SIDE_BY_SIDE := --numprocesses=3 --no-loadscope-reorder
# Measures how soon the page answers while nothing else runs.
ALONE := tests/reports/test_outage.py
# Needs a Docker engine: `make compose-test` runs it.
CONTAINERS := tests/compose/test_containers.py

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.ready: requirements.txt dev/requirements.txt dev/tools.txt dev/setup.sh
	@dev/setup.sh

setup: .venv/.ready  ## create .venv with everything that development needs

run: .venv/.ready  ## load the last three months on embedded databases, and print the published slices
	@$(BIN)/python -m dev run

up: .venv/.ready  ## do the same, then keep Airflow's UI running until Ctrl-C, and load eleven more months behind it
	@$(BIN)/python -m dev up

doctor: .venv/.ready  ## check the connections of the environment (AIRFLOW_CONN_...), else the embedded stack
	@PYTHONPATH=plugins $(BIN)/python -m dev doctor

report: .venv/.ready  ## write the dashboard as one HTML page and PNGs into dist/report/
	@PYTHONPATH=plugins $(BIN)/python -m dev report

atlas: .venv/.ready  ## write the dashboard for Atlas Charts into dist/meg-bi.charts
	@PYTHONPATH=plugins $(BIN)/python -m dev atlas

test: .venv/.ready  ## run every test but the fault injection, on real databases and a real scheduler
	@dev/install_test_tools.sh
	@$(BIN)/python -m pytest $(ALONE)
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) --dist=loadfile --ignore=tests/chaos $(patsubst %,--ignore=%,$(ALONE) $(CONTAINERS))

test-fast: .venv/.ready  ## run the tests that need no server and no Airflow process: under a minute
	@$(BIN)/python -m pytest -m fast

chaos: .venv/.ready  ## inject hundreds of faults, and print a table of them and of their effects
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/chaos --all-faults -v

compose-test: .venv/.ready  ## test the Compose guide with real containers, in half an hour; IMAGES=hub uses the true images
	@dev/install_test_tools.sh
	@IMAGES=$(IMAGES) $(BIN)/python -m pytest $(CONTAINERS) --verbose

.venv/.bench-ready: .venv/.ready bench/requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r bench/requirements.txt && touch $@

bench: .venv/.bench-ready  ## run the benchmarks, and compare each ratio with its goal; QUICK=1 takes five minutes, ONLY=path,meg selects
	@PYTHONPATH=plugins AIRFLOW_HOME=$(CURDIR)/.local/bench/airflow AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING \
		PYTHONWARNINGS="ignore:pyarrow.lib" $(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(KEEP),--keep) $(if $(ONLY),--only $(ONLY))

bench-sizing: .venv/.ready  ## measure the costs from which make sizing predicts, and compare a run with it: about 20 minutes
	@PYTHONPATH=plugins AIRFLOW_HOME=$(CURDIR)/.local/bench/airflow AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING \
		$(BIN)/python -m bench.sizing

bench-workers: .venv/.ready  ## load a month of 20,000 forms with 1, 2 and 4 Celery workers: about 15 minutes
	@PYTHONPATH=plugins $(BIN)/python -m bench.celery_scaling

compare: .venv/.ready  ## compare an old collection with the new one: make compare SLICE="monthly_submissions eu 2026-10"
	@PYTHONPATH=plugins $(BIN)/python -m dev.compare $(SLICE)

sizing: .venv/.ready  ## predict tasks, minutes, storage and connections: make sizing REGIONS=12 FORMS=20000
	@PYTHONPATH=plugins $(BIN)/python -m dev.sizing --regions='$(REGIONS)' --forms='$(FORMS)' --months='$(MONTHS)' \
		--observations='$(OBSERVATIONS)' --cores='$(CORES)' --slots='$(SLOTS)' --executor='$(EXECUTOR)'

mwaa: .venv/.ready  ## build the Amazon MWAA bundle in dist/mwaa/; AIRFLOW=3.2.1 selects the version, WHEELS=1 adds the packages
	@AIRFLOW="$(AIRFLOW)" WHEELS="$(WHEELS)" PYTHONPATH=plugins $(BIN)/python -m dev.mwaa

compat: .venv/.ready  ## run all DAGs on each supported Airflow and Python, and compare the documents; ONLY=3.2.1,python-3.14 selects
	@PYTHONPATH=plugins ONLY="$(ONLY)" $(BIN)/python -m dev.airflow_compat

check: .venv/.ready  ## check format, lint, spelling, generated documents, types and layers
	@dev/check.sh

audit: .venv/.ready  ## check every pinned version for known vulnerabilities; needs pypi.org's own API
	@$(BIN)/uv tool run --quiet "$$(grep '^pip-audit==' dev/tools.txt)" --strict --disable-pip --no-deps -r dev/requirements.txt

format: .venv/.ready  ## reformat the code and apply the safe lint fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: .venv/.ready  ## generate the tables of jobs and messages, and a page for each collection
	@PYTHONPATH=plugins $(BIN)/python -m dev.generate_docs

pins: .venv/.ready  ## pin every version of dev/requirements.in and dev/airflow_pins/*.in
	@dev/compile_requirements.sh

release: .venv/.ready  ## check, date the changelog, build dist/ with the MWAA bundle and tag the version; pushes nothing
	@PYTHONPATH=plugins $(BIN)/python -m dev.release

clean:  ## remove the environment, all local state and dist/
	@rm -rf .venv .local dist
