"""Small simulated cells, in the forms in which both doors want them, and the parameters."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks.engine.cells import section
from cfmvc.config import default_params_file
from cfmvc.data.canonical import write_canonical
from cfmvc.data.config import SimulateConfig, SplitConfig
from cfmvc.data.samplers import ShuffledCells
from cfmvc.data.simulate import simulate
from cfmvc.data.splits import assign_split, validation_cells
from cfmvc.tracking.store import Store

_TRAIN, _PREPARED, _STORE = "train.h5ad", "data/prepared/cells.h5ad", "mlflow.db"
_SIZES = {
    "n_cells": 240,
    "n_genes": 40,
    "n_batches": 2,
    "n_cell_types": 2,
    "n_perturbations": 2,
    "n_combinations": 1,
    "n_interactive": 0,
}
_STAGES = ("vae", "flow")


@dataclass(frozen=True)
class Plan:
    """What every training of a soak has in common.

    Parameters
    ----------
    n_epochs
        Of each stage.
    cells_per_step
        Few, so that there are many steps.
    """

    n_epochs: int
    cells_per_step: int = 8

    def params(self) -> dict[str, Any]:
        """Return what differs from the shipped parameters: small, and never stopped early."""
        of_both = {
            "n_epochs": self.n_epochs,
            "cells_per_step": self.cells_per_step,
            "hidden_dim": 32,
            "validate_every": 2,
            "patience": 10_000,
        }
        both = {f"{stage}.{key}": value for stage in _STAGES for key, value in of_both.items()}
        return {**both, "compute.device": "cpu", "checkpoint.every_seconds": 0.0}


class Base:
    """A folder with the cells, and an MLflow store whose tables are there.

    Parameters
    ----------
    folder
        Where.
    plan
        Of the trainings.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        folder.mkdir()
        cells, _ = simulate(section("simulate", SimulateConfig, **_SIZES))
        write_canonical(cells, folder / _TRAIN)
        split = section("split", SplitConfig)
        is_val = validation_cells(cells.obs, split)
        self._train_obs = {"fit": cells.obs[~is_val]}
        labels = assign_split(cells.obs, split, "+", "control").labels
        cells.obs["split"] = pd.Categorical(labels)
        (folder / _PREPARED).parent.mkdir(parents=True)
        write_canonical(cells, folder / _PREPARED)
        self._train_obs["stages"] = cells.obs[labels == "train"]
        Store.connect(f"sqlite:///{folder / _STORE}", folder)

    def n_steps(self, door: str) -> dict[str, int]:
        """Return how many optimiser steps a training by a door has, by stage."""
        obs = self._train_obs[door]
        is_control = (obs["perturbation"] == "control").to_numpy()
        strata = pd.MultiIndex.from_frame(obs[["batch", "cell_type"]].astype(str))
        with_source = ~is_control & strata.isin(strata[is_control])
        per_epoch = [self._order(n).n_steps for n in (len(obs), int(with_source.sum()))]
        return {
            f"train_{stage}": n * self.plan.n_epochs
            for stage, n in zip(_STAGES, per_epoch, strict=True)
        }

    def vetoed_steps(self, rows: list[int]) -> list[int]:
        """Return the steps of stage 1 (by the stages' door) that see one of some training cells."""
        order = self._order(len(self._train_obs["stages"]))
        steps = [step for epoch in range(self.plan.n_epochs) for step in order.epoch(epoch)]
        return [number for number, step in enumerate(steps) if np.isin(step, rows).any()]

    def copy(self, folder: Path, changed: dict[str, Any], spoilt: list[int] | None = None) -> None:
        """Make a folder to train in.

        Parameters
        ----------
        folder
            The new folder.
        changed
            Parameters that differ from the plan's.
        spoilt
            Rows of training cells that get a NaN count, behind the door that refuses them.
        """
        shutil.copytree(self.folder, folder)
        write_params(folder, self.plan.params() | changed)
        if spoilt:
            cells = anndata.read_h5ad(folder / _PREPARED)
            counts = cells.layers["counts"].astype(np.float32).tocsr()
            is_train = (cells.obs["split"] == "train").to_numpy()
            counts.data[counts.indptr[np.flatnonzero(is_train)[spoilt]]] = np.nan
            cells.layers["counts"] = counts
            cells.write_h5ad(folder / _PREPARED)

    def n_training_cells(self) -> int:
        """Return how many cells the stages' door learns from."""
        return len(self._train_obs["stages"])

    def _order(self, n_cells: int) -> ShuffledCells:
        return ShuffledCells(n_cells, self.plan.cells_per_step, seed=0)


def write_params(folder: Path, changed: dict[str, Any]) -> None:
    """Write the shipped parameters with some changed."""
    yaml = YAML()
    params = yaml.load(default_params_file())
    for name, value in changed.items():
        group, key = name.split(".")
        assert key in params[group], name
        params[group][key] = value
    yaml.dump(params, folder / "params.yaml")
