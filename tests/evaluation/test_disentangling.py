"""The measure finds what was put in, and the model keeps batch and biology apart."""

import numpy as np
import pytest
import torch

from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data import CellTable
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import simulate
from cfmvc.evaluation.disentangling import readable_labels
from cfmvc.stages import fit_vae
from cfmvc.stages.encoding import encode_table
from cfmvc.stages.prepared import training_cells
from cfmvc.training.config import VaeConfig


def test_finds_what_was_put_in() -> None:
    rng = np.random.default_rng(0)
    batch, kind = rng.integers(0, 2, 600), rng.integers(0, 3, 600)
    noise = rng.normal(size=(600, 4))
    knows_batch = noise + 4 * np.eye(4)[batch]
    found = readable_labels(
        {"z_int": noise, "z_tech": knows_batch},
        {"batch": batch.astype(str), "cell type": kind.astype(str), "one": np.full(600, "x")},
    )
    assert list(found.index) == ["batch", "cell type"]
    assert found.loc["batch", "z_tech"] > 0.95
    assert abs(found.loc["batch", "z_int"] - found.loc["batch", "chance"]) < 0.08
    assert found.loc["cell type", "chance"] == 1 / 3


@pytest.mark.slow
def test_the_model_puts_batch_into_z_tech_and_biology_into_z_int() -> None:
    params = read_yaml(default_params_file())
    sizes = {"n_cells": 1500, "n_genes": 200}
    cells, _ = simulate(parse_section(SimulateConfig, {**params["simulate"], **sizes}, "simulate"))
    cells.obs["split"] = np.where(np.arange(cells.n_obs) % 10 == 0, "val", "train")
    vae = parse_section(VaeConfig, {**params["vae"], "n_epochs": 25, "hidden_dim": 128}, "vae")
    prepared = training_cells(cells)
    bundle, _ = fit_vae(prepared, vae, torch.device("cpu"))
    table = CellTable.from_adata(cells, prepared.vocabulary)
    encoded = encode_table(bundle.model, table, torch.device("cpu"))
    found = readable_labels(
        {"z_int": encoded.int_mean.numpy(), "z_tech": encoded.tech_mean.numpy()},
        {
            name: cells.obs[name].astype(str).to_numpy()
            for name in ("batch", "cell_type", "perturbation")
        },
    )
    print(found)
    assert found.loc["batch", "z_tech"] > found.loc["batch", "z_int"]
    for biology in ("cell_type", "perturbation"):
        assert found.loc[biology, "z_int"] > found.loc[biology, "z_tech"]
    assert found.loc["cell_type", "z_int"] > 0.9
