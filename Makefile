# One command each, on a machine with Python >= 3.11, pip and make: everything is set up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-core test-long test-all faults relay check docs bench clean

demo: $(VENV)/.examples
	$(BIN)/python examples/demo.py

# One worker more than cores, at most five: tests wait for servers and processes a third of the time.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 4) + 1)')
PYTEST = -m pytest -n $(WORKERS) --dist worksteal

# What every change runs; tests/support/tiers.py says what it leaves to test-long.
test: $(VENV)/.dev
	$(BIN)/python $(PYTEST) -m "not long"

test-long: $(VENV)/.dev
	$(BIN)/python $(PYTEST) -m long

test-all: test
	$(MAKE) test-long

# With Python alone, in an environment without the client of any store: the core, the local disk and the memory.
CORE_TESTS = tests/api tests/local tests/memory tests/staging
test-core: $(VENV)/core/.made
	$(VENV)/core/bin/python $(PYTEST) -m "not (servers or jobs or long)" $(CORE_TESTS)

$(VENV)/core/.made: $(VENV)/.made pyproject.toml
	$(PYTHON) -m venv $(VENV)/core
	$(VENV)/core/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

# Every fault at every call through the seam, for every operation on every kind of place: docs/reliability.md.
faults: $(VENV)/.dev
	ATOMICPATH_FAULTS=all $(BIN)/python -m tests.faults

# Each behaviour of other stores with each operation, on every server: docs/stores.md.
relay: $(VENV)/.dev
	$(BIN)/python -m tests.relay --write
	$(BIN)/python -m tests.relay.ambiguity --write
	ATOMICPATH_RELAY=all $(BIN)/python -m pytest tests/relay

# What .ci/run checks beside the tests.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/write_a_backend/src
	$(BIN)/mypy examples/write_an_fsspec_backend/src
	$(BIN)/pyright
	$(BIN)/lint-imports

# The documents as a site in site/; a warning is a failure (with --quiet it would not be counted). The variable silences the notice that
# the theme ends in 2027.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/commit_overhead.py
	$(BIN)/python benchmarks/transfers.py
	$(BIN)/python benchmarks/coordination.py
	$(BIN)/python benchmarks/structure.py
	$(BIN)/python benchmarks/background.py
	$(BIN)/python -m benchmarks.scale

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "atomicpath needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.examples $(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

# torch by itself first, in a build without CUDA where there is one: the default one of Linux is gigabytes.
$(VENV)/.dev: $(VENV)/.made pyproject.toml | $(VENV)/.node
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Azurite, for the tests of Azure, and s3rver, an S3 that must be refused. Without npm, or the network, they say that
# they were skipped.
$(VENV)/.node: $(VENV)/.made Makefile
	@if command -v npm >/dev/null && npm install --prefix $(VENV)/node --no-audit --no-fund --silent azurite s3rver@3; \
	then touch $@; \
	else echo "*** Azurite and s3rver were NOT installed (they need Node.js and npm): nothing will be tested on them ***" >&2; fi

clean:
	rm -rf $(VENV) dist build site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
