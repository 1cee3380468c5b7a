# Each target makes what it needs: `make demo` or `make test` alone is enough on a machine with Python 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-all exhaustive coverage lint docs docs-serve fuzz faults mutants floors audit bench clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/core  ## train on handwritten digits until the network collapses, print a table, write a page
	rm -rf runs/demo
	$(BIN)/neuralcollapse train --output runs/demo

test: lint  ## lint and run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: lint  ## lint and run all tests, the exhaustive ones too
	$(BIN)/python -m pytest -n auto --dist worksteal -m ""

exhaustive: .venv/dev  ## only the tests that `make test` leaves out
	$(BIN)/python -m pytest -n auto --dist worksteal -m exhaustive

coverage: .venv/dev  ## all tests with coverage: fails below the threshold in pyproject.toml, writes coverage.json for the badge
	$(BIN)/python -m pytest -n auto --dist worksteal -m "" --cov --cov-report=term
	$(BIN)/coverage report --format=total | sed 's/.*/{"schemaVersion": 1, "label": "coverage", "message": "&%", "color": "green"}/' > coverage.json

lint: .venv/dev  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev  ## build the documentation site in build/site, the gallery's scripts included (some minutes)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: docs  ## open the documentation site on http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

fuzz: .venv/dev  ## ten thousand random inputs of the measures against an oracle (some minutes)
	NEURALCOLLAPSE_FUZZ=10000 $(BIN)/python -m pytest -q tests/fuzz

faults: .venv/dev  ## some 410 kills, full disks and other faults, counted (ten minutes; needs Linux and a C compiler)
	$(BIN)/python -m tests.faults --output results/reliability $(FAULTS)

mutants: .venv/dev  ## would a test notice? 150 small changes of geometry, measurement and ufm (half an hour)
	$(BIN)/python -m pip install --quiet "cosmic-ray>=8.3"
	$(BIN)/python -m tests.mutants --output results/reliability/mutants.json $(MUTANTS)

# uv chooses the versions: the lowest that pyproject.toml allows and that have a wheel for this Python.
floors:  ## run the tests with the lowest version of every dependency (Python 3.11; 3 GB for torch)
	$(PYTHON) -m venv build/floors
	build/floors/bin/python -m pip install --quiet uv
	build/floors/bin/uv pip install --python build/floors/bin/python --quiet --resolution lowest-direct \
		--only-binary :all: --no-binary neuralcollapse --editable ".[dev]"
	build/floors/bin/python -m pytest -n auto --dist worksteal tests

audit: .venv/dev  ## look for known vulnerabilities of the installed packages
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit
	build/audit/bin/pip-audit --strict --skip-editable --path $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

bench: .venv/dev  ## time both sides of every claim in one run (BENCH=--quick for a short look)
	failed=0; for script in benchmarks/bench_*.py; do $(BIN)/python $$script $(BENCH) || failed=1; done; exit $$failed

clean:  ## remove the environment
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/core: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ .venv/core
