# Two commands: `make demo` and `make test`. Both make their own environment in .venv first.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test lint format env clean

env: $(VENV)/.ready

# The constraints come first: an open range would pull gigabytes of CUDA packages.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --upgrade pip
	python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: env
	dvc repro
	cfmvc summary

test: env
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: env
	ruff check .
	ruff format --check .
	mypy

format: env
	ruff check --fix .
	ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
