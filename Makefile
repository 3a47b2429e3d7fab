# mailstack on a Debian machine that has git and make. `make` alone says what there is.

# Debian's own, on which the package runs, and not what happens to come first in the path.
PYTHON ?= $(or $(wildcard /usr/bin/python3),python3)
DIRECTORY ?= .run
PORTS ?=
# Twice as many as CI has cores: tests also wait, for timers, disks and servers that start.
WORKERS ?= 4
ROUNDS ?= 5
SCALE ?= 0.5
PEER ?= sdbox

VENV := .venv
BIN := $(VENV)/bin

# The environment, because it reaches the build of our own package too; newer versions of pip have a
# variable of its own for that.
export PIP_CONSTRAINT := $(CURDIR)/requirements/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Tests start hundreds of processes: each would compile all that it imports, where nothing may be kept.
unexport PYTHONDONTWRITEBYTECODE

# Where these are set pytest ends with all that a failed assertion compared: messages of 5 MB, and what had
# failed is not to be found in a log that is cut.
unexport CI BUILD_NUMBER

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test test-appliance test-long bench lint format clean deb debian-run debian-test

help:  ## print this list
	@awk -F ':.*##  *' '/^[a-z-]+:.*##/ { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: debian-run $(VENV)/run.stamp  ## start a demo server on this machine; Ctrl-C stops it, its mail stays in .run
	@$(BIN)/mailstack demo --directory $(DIRECTORY) $(if $(PORTS),--base-port $(PORTS))

test: lint  ## check style and types, then run all tests but the long ones: what CI runs
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not long"

test-appliance: debian-test $(VENV)/test.stamp  ## install the Debian package on a Debian that boots here (root only)
	@$(BIN)/pytest -m appliance -rs

test-long: debian-test $(VENV)/test.stamp  ## run the tests that take too long for every day
	@$(BIN)/pytest -m long --timeout 3600

bench: debian-run $(VENV)/run.stamp  ## measure it beside Postfix and Dovecot, as root; ROUNDS=5, SCALE=0.5, PEER=sdbox|maildir|both
	@requirements/install-debian bench
	@$(BIN)/python -m bench.compare --rounds $(ROUNDS) --scale $(SCALE) --peer $(PEER) --results bench/results.json

lint: debian-test $(VENV)/test.stamp  ## check style, types and the borders between the packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: debian-test $(VENV)/test.stamp  ## put the code into the shape that lint asks for
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

deb: debian-run $(VENV)/run.stamp  ## build the Debian package into dist
	@$(BIN)/python -m debian.build dist

clean:  ## remove all that make has made, but the demo's mail
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

debian-run:
	@requirements/install-debian run

debian-test:
	@requirements/install-debian run test

# What is there stays, for a demo may be running from it; unless another Python has made it.
MAKE_VENV = $(PYTHON) -m venv $(VENV) > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)

$(VENV)/run.stamp: pyproject.toml requirements/constraints.txt
	@echo "installing Python packages into $(VENV)"
	@$(MAKE_VENV)
	@$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/test.stamp: pyproject.toml requirements/constraints.txt
	@echo "installing Python packages into $(VENV), those for tests too"
	@$(MAKE_VENV)
	@$(BIN)/pip install -q -e '.[dev]'
	@touch $@ $(VENV)/run.stamp
