# Each target makes what it needs: `make demo` or `make test` alone is enough on a machine with Python 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-all exhaustive coverage lint docs docs-serve fuzz bench clean

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

bench: .venv/dev  ## check every timed claim, both sides in one run (BENCH=--quick for a short look)
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script $(BENCH) || exit 1; done

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
