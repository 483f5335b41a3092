# make train, make test: everything from nothing but Python (3.11 or later) and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile --editable
# On all cores, where pip takes one. Without this, and with PYTHONDONTWRITEBYTECODE set, every start takes 10 s longer.
# It fails by the templates that some packages hold, which are no Python.
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib src || true
ARGS ?=

.PHONY: install train test lint docs clean

install: .venv/installed

.venv/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit("Convolt needs Python 3.11 or later: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/pip
	$(PIP) '.[dev]'
	$(COMPILE)
	touch $@

.venv/extras: pyproject.toml | .venv/bin/pip
	$(PIP) '.[dev,docs,ray,slurm]'
	$(COMPILE)
	touch .venv/installed $@

train: install
	$(BIN)/python train.py $(ARGS)

test: .venv/extras
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/extras
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

# build/site/index.html, which needs no server; a link that leads nowhere is an error.
docs: .venv/extras
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf .venv build/site .mypy_cache .ruff_cache .pytest_cache
