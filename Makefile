# `make demo` and `make test` are the two that matter; the rest is for working on the code.
# Everything lives in .venv; delete it (or `make clean`) and the next target sets it up again.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?= ../shared/data
REGION ?= demo
CONFIG ?= examples/stockholm/geoloc.yaml
PYTEST_ARGS ?=
LOCK_FLAGS := --universal --python-version 3.11 --extra dev --extra production --extra ray --no-annotate --no-emit-index-url --no-emit-find-links

# Where nothing may be kept of compiled modules every process compiles two thousand of them again, which is most of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo setup test lint types pytest format lock audit docs dev stack stockholm clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv with the locked packages (done by the other targets when needed)

# The newest of the usual interpreters is not the safest choice: take `python3` when it is new enough.
$(BIN)/python:
	@for python in python3 python3.11 python3.12 python3.13; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "setting up $(VENV) with $$($$python --version)"; \
	    $$python -m venv $(VENV) || { echo "make: python venv support is missing (Debian: apt-get install python3-venv)" >&2; rm -rf $(VENV); exit 1; }; \
	    exit 0; \
	  fi; \
	done; \
	echo "make: no Python 3.11 or newer found; install one and try again" >&2; exit 1

# uv reads no pip configuration, so that a local wheel folder cannot pair torch with another torchvision.
$(READY): requirements.lock pyproject.toml | $(BIN)/python
	@uv=""; \
	for candidate in $(BIN)/uv uv; do if $$candidate --version >/dev/null 2>&1; then uv=$$candidate; break; fi; done; \
	if [ -z "$$uv" ]; then \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null; \
	  if $(BIN)/python -m pip install --quiet uv; then uv=$(BIN)/uv; fi; \
	fi; \
	if [ -n "$$uv" ]; then \
	  $$uv pip install --quiet --python $(BIN)/python -r requirements.lock; \
	  $$uv pip install --quiet --python $(BIN)/python --no-deps --editable .; \
	else \
	  echo "uv could not be had; using pip"; \
	  $(BIN)/python -m pip install --quiet -r requirements.lock; \
	  $(BIN)/python -m pip install --quiet --no-deps --editable .; \
	fi; \
	touch $(READY)

test: lint types pytest ## Set up if needed, then lint, type-check and run every test

lint: $(READY) ## Style and formatting, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## Strict type check of the domain packages
	$(BIN)/pyright

pytest: $(READY) ## Every test, a file per core and one more, since many wait; PYTEST_ARGS="-k config -x" narrows it
	$(BIN)/pytest --numprocesses $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

format: $(READY) ## Format and fix what can be fixed by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## Resolve requirements.lock again from pyproject.toml
	@uv=$(BIN)/uv; [ -x $$uv ] || uv=uv; \
	$$uv pip compile $(LOCK_FLAGS) --custom-compile-command "make lock" --upgrade --quiet pyproject.toml -o requirements.lock

# An environment of its own: what looks at the locked packages is not one of them. `--strict` because a package that cannot be
# looked up counts as sound otherwise.
audit: $(READY) ## Known vulnerabilities and withdrawn versions of the locked packages, their licences, vendored files (asks PyPI)
	@ignored=$$(awk '!/^#/ && NF {printf " --ignore-vuln %s", $$1}' docs/vulnerabilities.txt); \
	uv=$(BIN)/uv; [ -x $$uv ] || uv=uv; \
	$$uv tool run --from 'pip-audit>=2.10,<3' pip-audit --strict --requirement requirements.lock --no-deps --disable-pip $$ignored; \
	$$uv pip check --python $(BIN)/python
	$(BIN)/pytest --quiet geoloc_dagster_tests/test_dependencies.py geoloc_dagster_tests/explorer/test_vendored.py

docs: $(READY) ## Write again what comes from code: the README error table, the configuration of containers
	$(BIN)/python -m geoloc_dagster_tests.test_readme
	$(BIN)/python -m geoloc_dagster_tests.docker.test_compose

demo: $(READY) ## The whole chain on an emulated city, offline, in minutes; everything goes to demo/
	$(BIN)/geoloc demo demo

dev: $(READY) ## Open the Dagster UI on the data of the last run, with its emulated city where it has one
	$(BIN)/geoloc dev

stack: $(READY) ## Everything that production runs, as processes behind one login; REGION=… names a region's folder
	exec $(BIN)/geoloc stack $(REGION)

stockholm: $(READY) ## The whole chain on the Stockholm collection below DATA (default ../shared/data)
	GEOLOC_SHARED_DATA=$(abspath $(DATA)) $(BIN)/geoloc run --config $(CONFIG)

clean: ## Delete .venv and caches; collected data and trained models stay
	rm -rf $(VENV) .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
