"""A project with prepared cells, of a size at which a trial takes a second."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from cfmvc.config import default_params_file, read_yaml
from cfmvc.data.canonical import write_canonical
from cfmvc.data.cell_ids import CELL_ID, cell_ids
from cfmvc.data.config import SimulateConfig, SplitConfig
from cfmvc.data.simulate import simulate
from cfmvc.data.splits import assign_split
from cfmvc.files import md5_of_file, write_json
from cfmvc.tracking.store import Store
from cfmvc.tuning.tune import PREPARED, SPLIT
from tests.tracking.conftest import _own_store, template_store

__all__ = ["_own_store", "template_store"]

SMALL: dict[str, dict[str, Any]] = {
    "vae": {"n_epochs": 4, "validate_every": 1, "hidden_dim": 16, "dim_int": 4, "dim_tech": 2},
    "flow": {"n_epochs": 4, "validate_every": 1, "hidden_dim": 16, "hidden_ctx": 8},
    "generate": {"n_cells": 30, "n_steps": 3},
    "evaluate": {"n_components": 5},
    "tune": {
        "n_trials": 3,
        "n_cells": 30,
        "n_looks": 1,
        "n_startup_trials": 2,
        "heartbeat_seconds": 1,
        "warm_start": [],
        "space": {"flow.lr": {"low": 1e-4, "high": 1e-2, "log": True}},
    },
}
SIMULATED = {
    "n_cells": 400,
    "n_genes": 40,
    "n_batches": 2,
    "n_cell_types": 2,
    "n_perturbations": 3,
    "n_combinations": 0,
    "n_interactive": 0,
}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``data/prepared`` as the stage ``prepare`` leaves it."""
    folder = tmp_path_factory.mktemp("prepared")
    params = read_yaml(default_params_file())
    cells = simulate(SimulateConfig(**{**params["simulate"], **SIMULATED}))[0]
    split = assign_split(cells.obs, SplitConfig(**params["split"]), "+", "control")
    cells.obs["split"] = pd.Categorical(split.labels)
    cells.obs[CELL_ID] = cell_ids(cells)
    (folder / PREPARED).parent.mkdir(parents=True)
    write_canonical(cells, folder / PREPARED)
    record = {**split.to_json(), "data_md5": md5_of_file(folder / PREPARED)}
    write_json(folder / SPLIT, record)
    return folder


@pytest.fixture
def params() -> dict[str, Any]:
    """Return the shipped parameters, with small sizes."""
    shipped = read_yaml(default_params_file())
    return {name: {**values, **SMALL.get(name, {})} for name, values in shipped.items()}


@pytest.fixture
def workspace(tmp_path: Path, prepared: Path, template_store: Path, params: dict[str, Any]) -> Path:
    """Return a project's folder with prepared cells and a store that has its tables."""
    shutil.copy(template_store, tmp_path / "mlflow.db")
    shutil.copytree(prepared / "data", tmp_path / "data")
    write_params(tmp_path, params)
    return tmp_path


@pytest.fixture
def store(workspace: Path) -> Store:
    """Return the store of the workspace."""
    return Store.connect(f"sqlite:///{workspace / 'mlflow.db'}", workspace)


def write_params(workspace: Path, params: dict[str, Any]) -> None:
    with (workspace / "params.yaml").open("w") as stream:
        YAML().dump(params, stream)


def with_tune(params: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**params, "tune": {**params["tune"], **values}}
