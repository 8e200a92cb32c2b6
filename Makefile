# Everything a new user needs: `make demo` and `make test`. Both set up what they need in .venv and nothing else.
PYTHON ?= python3
VENV := .venv
AUDIT := .audit
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint audit bench test-vllm wheel clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --editable '.[test,lint]'
	@touch $@

demo: $(VENV)/.run ## Run a whole sweep on the embedded model: 100 problems x 64 samples, on Ray, into SQLite
	$(BIN)/ttc run examples/arithmetic.yaml

test: $(VENV)/.test ## Run all tests but those that need a real vLLM
	$(BIN)/python -m pytest -m "not vllm" --numprocesses 2 --dist loadfile

lint: $(VENV)/.lint ## Style, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(AUDIT)/.ready: | $(BIN)/python
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip --disable-pip-version-check install --quiet 'pip-audit>=2.10'
	@touch $@

# In a venv of its own: what audits is not among what is audited. `--strict`: what could not be looked up is not sound.
audit: $(AUDIT)/.ready ## Look up known vulnerabilities of the pinned packages; needs the network
	$(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off

bench: $(VENV)/.test ## Throughput, utilisation, writer and memory, each beside its floor
	$(BIN)/python -m benchmarks

test-vllm: $(VENV)/.test ## The tests that need a real vLLM; installs it in a venv of its own
	tests/vllm/setup.sh
	$(BIN)/python -m pytest -m vllm tests/vllm

wheel: $(VENV)/.run ## Build the wheel into dist/
	$(PIP) build
	$(BIN)/python -m build --wheel

clean: ## Remove what the targets made, but no database
	rm -rf $(VENV) $(AUDIT) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
