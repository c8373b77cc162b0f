# Every task of the project. `make` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help install demo demo-sec ui test test-kafka test-faults check bench bench-landing lock clean

help: ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

install: $(INSTALLED) ## make .venv with exactly the locked packages

$(INSTALLED): requirements.lock requirements-setup.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## set up, then the whole lifecycle on a simulated market
	$(BIN)/ml-assets demo

demo-sec: $(INSTALLED) ## the same on the SEC's fails-to-deliver files: make demo-sec DATA=<folder>
	@test -n "$(DATA)" || { echo "give the folder of the SEC's files: make demo-sec DATA=<folder>"; exit 2; }
	$(BIN)/ml-assets demo --use-case cns_fails --data "$(DATA)"

ui: $(INSTALLED) ## the Dagster UI with its daemon, on http://localhost:3000
	$(BIN)/ml-assets ui

bench: $(INSTALLED) ## measure, and write docs/benchmarks.md
	$(BIN)/python -m ml_assets_tests.bench

bench-landing: $(INSTALLED) ## measure landing on Apache Kafka, and write docs/benchmarks-landing.md
	$(BIN)/python -m ml_assets_tests.bench_landing

test: check ## set up, then lint, types and all tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not kafka and not faults"

test-kafka: $(INSTALLED) ## landing on Apache Kafka, TLS and SASL included (needs Java 17 and Maven)
	$(BIN)/python -m ml_assets_tests.kafka.apache
	$(BIN)/python -m pytest -q --broker apache -m "not faults" ml_assets_tests/landing ml_assets_tests/kafka \
		ml_assets_tests/sensors/test_lag.py

check: $(INSTALLED) ## ruff, mypy and Dagster's definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	home=$$(mktemp -d) && touch $$home/dagster.yaml && DAGSTER_HOME=$$home \
		$(BIN)/dagster definitions validate --log-level warning -m ml_assets.definitions

lock: $(INSTALLED) ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
		--custom-compile-command 'make lock' --all-extras --upgrade pyproject.toml --output-file requirements.lock
	echo 'uv' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
		--custom-compile-command 'make lock' --upgrade - --output-file requirements-setup.lock

clean: ## remove what the demo and the tests made
	rm -rf .ml_assets .mypy_cache .ruff_cache .pytest_cache .hypothesis
