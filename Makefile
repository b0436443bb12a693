# Everything runs in .venv, built here from pyproject.toml; needs Python >= 3.11 and pip.
# The demo needs the extra `cli` alone; tests and benchmarks need all of `dev`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test types tests coverage docs bench clean

setup: .venv/.dev

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo "Making a virtual environment in .venv ..."
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.cli: pyproject.toml | .venv/.python
	@echo "Installing ratelimit and what its commands need into .venv (about 100 MB, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/.python
	@echo "Installing what tests and benchmarks need into .venv (about 700 MB, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# without its dependencies, which `dev` lists: its upper bounds would hold back the openai client
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'instructor>=1.15'
	@touch .venv/.cli $@

demo: .venv/.cli
	$(BIN)/ratelimit demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# beside each other: the types alone would leave one of two cores idle for a minute
	@$(MAKE) --no-print-directory --jobs 2 types tests

types: setup
	$(BIN)/mypy
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python

tests: setup
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# the lines that no test reaches; half as long again, as each line of the package is noted
coverage: setup
	$(BIN)/pytest --numprocesses 2 --dist worksteal --cov

# a warning, a name or a link that leads nowhere fails; open site/index.html
docs: setup
	$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet docs site

bench: setup
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* dist site
