# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help axolotl-env demo test test-slow check format wheel clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once; PyTorch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)   ## run the demo study and print where its result page lies
	@$(BIN)/ltm run studies/demo.yaml

test: $(STAMP)   ## all tests but the slow ones
	@$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(STAMP) ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

axolotl-env:     ## Axolotl in an environment of its own, for `runs.engine: axolotl` (gigabytes)
	@test -x .venv-axolotl/bin/python || $(PYTHON) -m venv .venv-axolotl
	@.venv-axolotl/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 axolotl==0.19.0
	@echo "Axolotl is in .venv-axolotl; ltm finds it there, or say where with LTM_AXOLOTL"

wheel: $(STAMP)  ## build dist/*.whl
	@$(BIN)/python -m build --wheel --outdir dist .

clean:           ## remove what was built, not what studies found
	@rm -rf $(VENV) dist build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
