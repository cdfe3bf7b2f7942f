# Everything sets itself up: Python 3.11 or newer, make and a package registry are enough.
# The newest Python that the functions support (Lambda runs 3.13), also one that pyenv holds without showing it.
PYTHON ?= $(shell for version in 3.13 3.12 3.11; do \
	for python in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null && echo "$$python" && exit; done; done; echo python3)
PORT ?= 3000
AWS_PORT ?= 3001
MODEL ?= rule
FAULTS ?=
VERBOSE ?=

VENV := .venv
SAM := .venv-sam/bin/sam
IN := $(VENV)/bin
SOURCES := functions/runtime functions/banking_tools local tests
# Each folder below functions/ is one artifact, with modules of its own top level.
export PYTHONPATH := functions/runtime:functions/banking_tools

# Tests of the storage reset what moto holds in their process, so those of a running stack are a run of their own, with
# a stack a worker.
UNIT := tests/unit tests/infrastructure -n auto --dist worksteal
STACK := tests/workflow tests/api -n auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo up test test-all check format build deploy bench clean

demo: $(VENV)/.offline  ## a conversation with the banking agent, offline
	@$(IN)/python -m local demo --model '$(MODEL)' $(if $(FAULTS),--faults '$(FAULTS)')

up: $(VENV)/.offline  ## serve on 127.0.0.1 until Ctrl-C (PORT, AWS_PORT, MODEL=rule|script:FILE|openai:URL#model|bedrock, FAULTS=FILE, VERBOSE=1)
	@exec $(IN)/python -m local up --port $(PORT) --aws-port $(AWS_PORT) --model '$(MODEL)' $(if $(FAULTS),--faults '$(FAULTS)') $(if $(VERBOSE),--verbose)

test: $(VENV)/.development  ## what one runs while working: all tests but the longest, some cases of what has very many
	$(IN)/python -m pytest $(UNIT)
	$(IN)/python -m pytest $(STACK)

test-all: $(VENV)/.development  ## all tests and all cases: `make demo`, `make up` and the console in a browser too
	$(IN)/python -m pytest --thorough $(UNIT)
	$(IN)/python -m pytest --thorough $(STACK) tests/page

check: $(VENV)/.development $(SAM)  ## format, lint, types, template, parameters, definitions, agent files, imports, permissions of tools
	$(IN)/python -m local.deployment.check
	$(IN)/ruff format --check $(SOURCES)
	$(IN)/ruff check $(SOURCES)
	$(IN)/mypy $(SOURCES)
	SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 $(SAM) validate --lint

format: $(VENV)/.development
	$(IN)/ruff format $(SOURCES)
	$(IN)/ruff check --fix $(SOURCES)

build: $(SAM)  ## build the artifacts for Lambda (arm64, python3.13), on any machine
	PYTHON="$(PYTHON)" SAM_CLI_TELEMETRY=0 $(SAM) build

deploy: build  ## deploy to the account of your AWS credentials; asks first
	SAM_CLI_TELEMETRY=0 $(SAM) deploy

bench: $(VENV)/.development  ## count transitions, requests, units, bytes and milliseconds
	@$(IN)/python -m local bench

clean:
	rm -rf .venv .venv-sam .aws-sam .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(IN)/python:
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Turnwright needs Python 3.11 or newer: make PYTHON=python3.12")'
	"$(PYTHON)" -m venv $(VENV)
	$(IN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/.offline: pyproject.toml | $(IN)/python
	$(IN)/python -m pip install --quiet --disable-pip-version-check --group offline
	@touch $@

$(VENV)/.development: pyproject.toml | $(IN)/python
	$(IN)/python -m pip install --quiet --disable-pip-version-check --group development
	@touch $@ $(VENV)/.offline

# In an environment of its own: it pins other versions of what the offline stack pins.
$(SAM):
	"$(PYTHON)" -m venv .venv-sam
	.venv-sam/bin/python -m pip install --quiet --disable-pip-version-check aws-sam-cli==1.170.0
