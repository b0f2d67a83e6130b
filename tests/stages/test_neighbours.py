"""A response that hangs on who is around, and not on where one is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data.normalise import log_normalise, median_library
from cfmvc.errors import ConfigError
from cfmvc.models import Bundle, load_bundle, save_bundle
from cfmvc.stages import perturb_region, predict_cells
from cfmvc.stages.flow import fit_joint
from cfmvc.training import train_flow_stage
from cfmvc.training.config import FlowConfig, JointConfig
from tests.stages.conftest import fit, small_tissue, tables_of

N_GENES, N_RESPONDING, N_MARKERS = 30, 8, 8
EVERYWHERE = "0,100,0,100"


def patchwork(seed: int, n_cells: int = 1500, n_patches: int = 6) -> AnnData:
    """A tissue of patches of two kinds; only in one kind do cells respond."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 100, (n_cells, 2))
    kinds = rng.permutation(np.arange(n_patches**2) % 2).reshape(n_patches, n_patches)
    tile = (places // (100 / n_patches)).astype(int).clip(0, n_patches - 1)
    is_kind = kinds[tile[:, 0], tile[:, 1]].astype(bool)
    perturbed = rng.random(n_cells) < 0.4
    # The kind of a patch shows in half of its cells; the others are alike everywhere.
    tells = rng.random(n_cells) < 0.5
    rate = np.tile(np.exp(rng.normal(0.5, 0.2, N_GENES)), (n_cells, 1))
    markers = slice(N_RESPONDING, N_RESPONDING + N_MARKERS)
    rate[is_kind & tells, markers] *= 4.0
    rate[is_kind & perturbed, :N_RESPONDING] *= 4.0
    obs = pd.DataFrame(
        {
            "perturbation": np.where(perturbed, "A", "control"),
            "batch": "b",
            "cell_type": "t",
            "is_kind": is_kind,
            "tells": tells,
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    counts = csr_matrix(rng.poisson(rate).astype(np.float32))
    cells = AnnData(obs=obs, var=var, layers={"counts": counts})
    cells.obsm["spatial"] = places.astype(np.float32)
    return cells


def contrast(bundle: Bundle, tissue: AnnData) -> float:
    """Return how much more silent cells change in patches that respond than in others."""
    change = perturb_region(bundle, tissue, "A", EVERYWHERE, seed=0, n_steps=10)
    silent = change.is_changed & ~tissue.obs["tells"].to_numpy()
    moved = change.cells.layers["change"].toarray()[:, :N_RESPONDING].mean(1)
    kind = tissue.obs["is_kind"].to_numpy()
    return float(moved[silent & kind].mean() - moved[silent & ~kind].mean())


def truth(tissue: AnnData) -> float:
    """Return the same of the cells that are perturbed there."""
    logged = log_normalise(tissue.layers["counts"], median_library(tissue.layers["counts"]))
    level = logged.toarray()[:, :N_RESPONDING].mean(1)
    silent, kind = (~tissue.obs["tells"]).to_numpy(), tissue.obs["is_kind"].to_numpy()
    perturbed = (tissue.obs["perturbation"] == "A").to_numpy()

    def shift(where: np.ndarray) -> float:
        return float(
            level[silent & where & perturbed].mean() - level[silent & where & ~perturbed].mean()
        )

    return shift(kind) - shift(~kind)


@pytest.mark.slow
def test_neighbours_tell_what_the_cell_itself_does_not() -> None:
    known, other = patchwork(0), patchwork(1)
    settings = {"n_epochs": 60, "hidden_dim": 32}
    flow = {"n_epochs": 100, "cells_per_step": 64}
    with_them = fit(known, **settings, flow={"n_neighbours": 10, **flow})
    without = fit(known, **settings, flow=flow)
    found, blind, true = contrast(with_them, other), contrast(without, other), truth(other)
    print(f"with neighbours {found:.3f}, without {blind:.3f}, in truth {true:.3f}")
    # In a tissue of another layout the coordinates of the first say nothing.
    assert found > 0.35 * true
    assert found > 3 * abs(blind)


def test_a_saved_model_remembers_them_and_nothing_stays_nothing(tmp_path: Path) -> None:
    tissue = small_tissue()
    bundle = fit(tissue, flow={"n_neighbours": 4})
    reference = bundle.model.reference
    assert reference is not None
    assert reference.neighbours is not None
    save_bundle(bundle, tmp_path / "model")
    loaded = load_bundle(tmp_path / "model")
    asked = pd.DataFrame(
        {"perturbation": ["A", "control"], "batch": "b1", "cell_type": "T", "n_cells": 20}
    )
    for controls in (None, tissue):
        made = [predict_cells(b, asked, controls, seed=0, n_steps=3) for b in (bundle, loaded)]
        means = [prediction.cells.layers["mean"] for prediction in made]
        np.testing.assert_array_equal(means[0], means[1])
    nothing = perturb_region(bundle, tissue, "control", EVERYWHERE, seed=0, n_steps=3)
    assert (nothing.cells.layers["counts"] != tissue.layers["counts"]).nnz == 0


def test_cells_outside_of_the_region_are_neighbours_too() -> None:
    tissue = small_tissue()
    bundle = fit(tissue, n_epochs=3, flow={"n_neighbours": 4})
    inside = (tissue.obsm["spatial"][:, 0] <= 50).astype(bool)
    other = tissue.copy()
    counts = other.layers["counts"].toarray()
    counts[~inside] = np.random.default_rng(0).permutation(counts[~inside])
    other.layers["counts"] = csr_matrix(counts)
    changes = [
        perturb_region(bundle, cells, "A", "0,50,0,100", seed=0, n_steps=3).cells.layers["change"]
        for cells in (tissue, other)
    ]
    assert (changes[0][inside] != changes[1][inside]).nnz > 0


def test_fine_tuning_is_refused_for_it_would_change_them() -> None:
    tissue = small_tissue()
    bundle = fit(tissue, flow={"n_neighbours": 4})
    params = read_yaml(default_params_file())
    joint = parse_section(JointConfig, {**params["joint"], "n_epochs": 1}, "joint")
    flow = parse_section(FlowConfig, params["flow"], "flow")
    with pytest.raises(ConfigError, match="set one of the two to 0"):
        fit_joint(bundle, tables_of(tissue), joint, flow, torch.device("cpu"))
    with pytest.raises(ConfigError, match="freeze the VAE"):
        train_flow_stage(bundle.model, [], freeze_vae=False)
