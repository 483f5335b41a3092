# make train, make test: everything from nothing but Python (3.11 or later) and make.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: install train test lint clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Convolt needs Python 3.11 or later: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	touch $@

.venv/extras: .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev,ray,slurm]'
	touch $@

train: install
	$(BIN)/python train.py $(ARGS)

test: .venv/extras
	$(BIN)/python -m pytest -n auto --maxprocesses 8 $(ARGS)

lint: .venv/extras
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
