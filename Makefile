# Everything runs in .venv, which the first target that needs it creates. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TYPECHECK := build/typecheck
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo demo-quick test test-slow test-gpu check types format tables docs bench licences clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1:/p' $(firstword $(MAKEFILE_LIST)) | while IFS=: read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done

demo: $(READY) ## train RL² on a Meta-World robot and show how it adapts to hidden goals (5 minutes)
	@$(BIN)/python -m metarl.scripts.demo

demo-quick: $(READY) ## train MAML on point navigation and show how it adapts (a minute)
	@$(BIN)/python -m metarl.scripts.demo --quick

test: $(READY) ## run the fast tests
	@$(PYTEST) -q -n auto

test-slow: $(READY) ## run the tests that take minutes
	@$(PYTEST) -q -n auto -m 'slow and not gpu'

test-gpu: $(READY) ## run the tests that need a CUDA device
	@$(PYTEST) -q -m gpu

check: $(READY) types ## lint, formatting, types, import directions
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(PYTEST) -q --no-header tests/test_architecture.py

# The folders envs, agents and scripts are the packages metarl.envs, ...: only an installed tree has those names.
types: $(READY)
	@rm -rf build
	@$(PIP_INSTALL) --no-deps --no-build-isolation --target $(TYPECHECK) .
	@cd $(TYPECHECK) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache

format: $(READY) ## format the code and mend what ruff can
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

tables: $(READY) ## write the tables of README and docs/ from the JSON files in docs/
	@$(BIN)/python docs/tables

docs: $(READY) ## build the documentation as a site in build/site, without a network
	@test -x $(BIN)/mkdocs || $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo 'build/site/index.html; with its search: $(BIN)/python -m http.server --directory build/site'

bench: $(READY) ## measure the speed of training
	@$(BIN)/metarl benchmark maml

licences: $(READY) ## list the packages that metarl needs, with versions and licences
	@$(BIN)/python -m metarl.scripts.licences

clean: ## remove .venv and everything else that make and the tests create (runs stay)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "metarl needs Python 3.11 or newer, \
	this is %d.%d: say make PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing metarl into $(VENV) (once; some minutes where packages have to be downloaded) ...'
	@$(PIP_INSTALL) -c constraints.txt setuptools
	@$(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@
