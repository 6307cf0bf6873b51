# make demo   plant a backdoor, scan the model, remediate it, reveal the trigger
# make test   everything that CI runs: lint, types, tests
# Both create .venv and install from nothing; a second run installs nothing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := beear_gate tests

export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1
# Tests start many processes: one that must compile torch and transformers again imports for twice as long.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test install-dev lint types format pytest clean

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

demo: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/beear-gate demo

test: lint types pytest

install-dev: $(VENV)/.installed-dev

# pytest ends with the number of tests. Two workers, one core each; a file stays with one of them, for its fixtures,
# and files go out in the order of tests/conftest.py, the longest first.
pytest: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=20

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy --strict $(CODE)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What scans have left (runs/, mlflow.db) stays.
clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
	find $(CODE) policies -name __pycache__ -type d -prune -exec rm -rf {} +

# `python3 -m venv` leaves an existing environment in place, so an interrupted installation goes on where it was. Most of
# what development installs is never imported, so that Python compiles what is.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile -e '.[dev]'
	touch $(VENV)/.installed $@
