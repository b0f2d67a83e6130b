# `make demo`, `make test` and `make bench` make their own environment in .venv first.
PYTHON ?= python3
VENV := .venv
SCVI_VENV := .venv-scvi
CELLFLOW_VENV := .venv-cellflow
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

ROWS ?=
ROUNDS ?= 5
STEPS ?= 10000
SEED ?= 0

.PHONY: demo test bench bench-env cellflow-env soak lint format env clean

env: $(VENV)/.ready

# The constraints come first: an open range would pull gigabytes of CUDA packages.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --upgrade pip
	python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# A refused promotion (exit code 3) is a verdict, not a failure.
demo: env
	dvc repro
	cfmvc summary
	cfmvc registry promote candidate || test $$? -eq 3

# Three workers on two cores: many tests wait for processes, servers and disks.
test: env
	python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# ROWS=stage1,stage2 selects; the rows are listed in benchmarks/engine/table.py.
bench: env
	python -m benchmarks.engine --rounds $(ROUNDS) $(if $(ROWS),--rows $(ROWS))

# What the row `scvi` is measured against has an environment of its own, and no say in ours.
bench-env: $(SCVI_VENV)/.ready

$(SCVI_VENV)/.ready: benchmarks/environments/scvi.txt constraints.txt
	$(PYTHON) -m venv $(SCVI_VENV)
	$(SCVI_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(SCVI_VENV)/bin/python -m pip install --quiet --constraint constraints.txt \
		--requirement benchmarks/environments/scvi.txt
	touch $@

# Likewise what `python -m benchmarks.cellflow` is measured against. The constraints do not apply: it
# pins an older scikit-learn; its own file pins the rest, jax for the CPU.
cellflow-env: $(CELLFLOW_VENV)/.ready

$(CELLFLOW_VENV)/.ready: benchmarks/environments/cellflow.txt
	$(PYTHON) -m venv $(CELLFLOW_VENV)
	$(CELLFLOW_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(CELLFLOW_VENV)/bin/python -m pip install --quiet --requirement benchmarks/environments/cellflow.txt
	touch $@

# Trainings under faults, each of which must end with the right model or the right error. Who may
# mount gets disks that are really full.
soak: env
	python -m benchmarks.soak --steps $(STEPS) --seed $(SEED)

lint: env
	ruff check .
	ruff format --check .
	mypy

format: env
	ruff check --fix .
	ruff format .

clean:
	rm -rf $(VENV) $(SCVI_VENV) $(CELLFLOW_VENV) .pytest_cache .mypy_cache .ruff_cache
