"""A project in which a fold is trained and scored in a second or two."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from cfmvc.benchmark.cells import BenchmarkCells
from cfmvc.benchmark.config import BenchmarkConfig
from cfmvc.benchmark.folds import Fold
from cfmvc.benchmark.tasks import folds_of
from cfmvc.cli.benchmarking import Order
from cfmvc.config import default_params_file, read_yaml
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import simulate
from cfmvc.tracking.store import Store
from tests.tracking.conftest import _own_store, template_store
from tests.tuning.conftest import write_params

__all__ = ["_own_store", "template_store"]

SMALL: dict[str, dict[str, Any]] = {
    "simulate": {
        "n_cells": 600,
        "n_genes": 30,
        "n_batches": 2,
        "n_cell_types": 2,
        "n_perturbations": 2,
        "n_combinations": 1,
        "n_interactive": 1,
    },
    "vae": {"n_epochs": 2, "validate_every": 1, "hidden_dim": 16, "dim_int": 4, "dim_tech": 2},
    "flow": {"n_epochs": 2, "validate_every": 1, "hidden_dim": 16, "hidden_ctx": 8},
    "generate": {"n_cells": 20, "n_steps": 2},
    "evaluate": {"n_components": 5, "n_draws": 3, "n_bootstrap": 200, "n_ceiling_splits": 2},
    "benchmark": {
        "combinations": {},
        "doses": [0.5, 1.0, 2.0],
        "n_regions": 2,
        "min_cells_to_rank": 20,
    },
}


@pytest.fixture
def params() -> dict[str, Any]:
    """Return the shipped parameters, with small sizes."""
    shipped = read_yaml(default_params_file())
    return {name: {**values, **SMALL.get(name, {})} for name, values in shipped.items()}


@pytest.fixture
def workspace(tmp_path: Path, template_store: Path, params: dict[str, Any]) -> Path:
    """Return a project's folder with a store that has its tables."""
    shutil.copy(template_store, tmp_path / "mlflow.db")
    write_params(tmp_path, params)
    return tmp_path


@pytest.fixture
def store(workspace: Path) -> Store:
    """Return the store of the workspace."""
    return Store.connect(f"sqlite:///{workspace / 'mlflow.db'}", workspace)


def order(**values: Any) -> Order:
    """Return what the command line would ask for: one seed, untracked."""
    nothing: dict[str, Any] = {
        "data": None,
        "task": "held_out_cell_type",
        "seeds": 1,
        "seed": [],
        "folds": [],
        "settings": [],
        "out": None,
        "workers": 1,
        "track": False,
    }
    return Order(**(nothing | values))


def simulated(**values: Any) -> AnnData:
    """Return small simulated cells with doses, coordinates and embeddings."""
    section = read_yaml(default_params_file())["simulate"] | SMALL["simulate"]
    section |= {"doses": [0.5, 1.0, 2.0], "spatial": True, "n_cells": 1500} | values
    cells = simulate(SimulateConfig(**section))[0]
    names = [f"P{number + 1}" for number in range(section["n_perturbations"])]
    cells.uns["perturbation_embeddings"] = {name: np.ones(3) for name in names}
    return cells


def plain(**values: Any) -> AnnData:
    """Return small simulated cells that two tasks alone are made for."""
    cells = simulated(doses=[], spatial=False, n_combinations=0, n_interactive=0, **values)
    del cells.uns["perturbation_embeddings"]
    return cells


def folds(cells: AnnData, task: str, min_cells: int = 8, **values: Any) -> list[Fold]:
    """Return a task's folds with the shipped section ``benchmark``, or another one."""
    section = read_yaml(default_params_file())["benchmark"] | values
    design = BenchmarkCells(cells, "cells", "").design
    return folds_of(task, design, BenchmarkConfig(**section), min_cells)[0]
