# Forelook: `make demo` shows it working, `make test` proves it.
# PYTHON=python3.12 picks an interpreter, TORCH_INDEX=URL another build of torch.
PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHON TORCH_INDEX VENV

.PHONY: help demo test check format lint types setup setup-dev clean

help:
	@echo "make demo    a suggestion from a real model, through the real backend and language server"
	@echo "make test    all tests"
	@echo "make check   ruff, mypy (strict) and the tests"
	@echo "make format  format the sources"
	@echo "make clean   remove the environment and caches"

setup:
	@scripts/setup.sh run

setup-dev:
	@scripts/setup.sh dev

demo: setup
	@$(BIN)/python scripts/demo.py

test: setup-dev
	@$(BIN)/python -m pytest

lint: setup-dev
	$(BIN)/ruff check backend lsp tests scripts
	$(BIN)/ruff format --check backend lsp tests scripts

types: setup-dev
	$(BIN)/mypy -p forelook -p forelook_lsp

check: lint types test

format: setup-dev
	$(BIN)/ruff check --fix backend lsp tests scripts
	$(BIN)/ruff format backend lsp tests scripts

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
