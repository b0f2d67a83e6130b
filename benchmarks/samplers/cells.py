"""The two sets of cells that studies are compared on, prepared as the pipeline does it."""

from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from cfmvc.config import section_of
from cfmvc.data.canonical import load_cells, write_canonical
from cfmvc.data.cell_ids import CELL_ID, cell_ids
from cfmvc.data.config import DataConfig, SimulateConfig, SplitConfig
from cfmvc.data.simulate import simulate
from cfmvc.data.splits import assign_split
from cfmvc.files import write_json
from cfmvc.tuning.tune import PREPARED, SPLIT

SIM = "sim"
# Two cell types and two batches: more strata would hold too few of so few cells.
_SIMULATED = {
    "n_cells": 1200,
    "n_genes": 100,
    "n_batches": 2,
    "n_cell_types": 2,
    "n_perturbations": 3,
    "n_combinations": 0,
    "n_interactive": 0,
}
# What makes a trial take seconds instead of minutes; all else is as params.yaml says.
FEWER: dict[str, dict[str, Any]] = {"vae": {"n_epochs": 20}, "flow": {"n_epochs": 30}}


def set_name(data: str) -> str:
    """Return the short name of a set: ``sim``, or the first word of the file's name."""
    return Path(data).stem.split("_")[0]


def smaller(params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters with fewer epochs."""
    return {name: {**values, **FEWER.get(name, {})} for name, values in params.items()}


def prepare(data: str, params: dict[str, Any], workspace: Path) -> None:
    """Write what the stage ``prepare`` leaves in a project's folder.

    Parameters
    ----------
    data
        ``sim``, or an ``.h5ad`` file, which is only read.
    params
        All parameters.
    workspace
        The folder.
    """
    names = section_of(params, "data", DataConfig)
    cells = _simulated(params) if data == SIM else load_cells(Path(data), names)
    split = assign_split(
        cells.obs, section_of(params, "split", SplitConfig), names.separator, names.control
    )
    cells.obs["split"] = pd.Categorical(split.labels)
    cells.obs[CELL_ID] = cell_ids(cells)
    (workspace / PREPARED).parent.mkdir(parents=True, exist_ok=True)
    write_canonical(cells, workspace / PREPARED)
    write_json(workspace / SPLIT, split.to_json())


def _simulated(params: dict[str, Any]) -> AnnData:
    return simulate(SimulateConfig(**{**params["simulate"], **_SIMULATED}))[0]
