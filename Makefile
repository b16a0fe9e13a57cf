# Forelook: `make demo` shows it working, `make test` proves it.
# PYTHON=python3.12 picks an interpreter, TORCH_INDEX=URL another build of torch.
PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHON TORCH_INDEX VENV

.PHONY: help model demo bench bench-quick bench-gpu test attack generate check e2e test-extension package format lint types setup setup-dev clean

help:
	@echo "make model   the base of the default model (93 MB), into your model folder; demo, test, bench and e2e do this first"
	@echo "make demo    a suggestion from a real model, through the real backend and language server"
	@echo "make test    all tests"
	@echo "make bench   measure and rewrite docs/benchmarks.md, README's figures and pictures; bench-quick: the same code with tiny settings"
	@echo "make bench-gpu   the rows of a CUDA device, in eight minutes; PYTHON is an interpreter with torch and transformers"
	@echo "make attack  attacks on real processes, ten minutes; ATTACK_SECONDS=3600 for an hour"
	@echo "make check   ruff, mypy (strict) and the tests"
	@echo "make e2e     the VS Code extension in a real VS Code; downloads one (about 800 MB) on the first call"
	@echo "make test-extension, make package   the extension's unit tests, and its .vsix"
	@echo "make format  format the sources"
	@echo "make generate   write the settings and the fields of HTTP requests into the manifest and the docs"
	@echo "make clean   remove the environment and caches"

setup:
	@scripts/setup.sh run

setup-dev:
	@scripts/setup.sh dev

# Once it is there, this asks no network.
model:
	@$(BIN)/forelook pull smollm2-135m || echo "forelook: without it the small bundled model answers" >&2

demo: setup model
	@$(BIN)/python scripts/demo.py

bench: setup-dev model
	@$(BIN)/python scripts/write_benchmarks.py --run

bench-quick: setup-dev model
	@$(BIN)/python scripts/write_benchmarks.py --quick

# On a borrowed machine: no environment is made, and after each measurement the result is on disk.
bench-gpu:
	PYTHONPATH=backend $(PYTHON) scripts/bench_gpu.py --json docs/benchmarks/results/gpu.json
	PYTHONPATH=backend $(PYTHON) scripts/write_benchmarks.py --only gpu

test: setup-dev model
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

ATTACK_SECONDS ?= 600
attack: setup-dev
	@$(BIN)/python -m pytest tests/attack --attack-seconds $(ATTACK_SECONDS) -p no:cacheprovider --timeout 7200

generate: setup-dev
	$(BIN)/python scripts/generate_settings.py
	$(BIN)/python scripts/generate_http_fields.py

lint: setup-dev
	$(BIN)/ruff check backend lsp tests scripts
	$(BIN)/ruff format --check backend lsp tests scripts

types: setup-dev
	$(BIN)/mypy -p forelook -p forelook_lsp

check: lint types test

# The scripts below take PYTHON for the interpreter that has Forelook, which is the environment's.
e2e: setup-dev model
	PYTHON=$(abspath $(BIN)/python) tests/e2e_vscode/run.sh

test-extension: setup-dev
	npm ci --ignore-scripts --no-audit --no-fund
	PYTHON=$(abspath $(BIN)/python) npm run check

package: setup-dev
	npm ci --ignore-scripts --no-audit --no-fund
	PYTHON=$(abspath $(BIN)/python) npm run package

format: setup-dev
	$(BIN)/ruff check --fix backend lsp tests scripts
	$(BIN)/ruff format backend lsp tests scripts

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
