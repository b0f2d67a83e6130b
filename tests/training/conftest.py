"""Cells and settings small enough to train in a blink."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from cfmvc.data import CellTable, Vocabulary
from cfmvc.stages import TrainingCells
from cfmvc.training.config import FlowConfig, VaeConfig

LOOP: dict[str, Any] = {
    "n_epochs": 3,
    "cells_per_step": 16,
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "lr_warmup": 0.1,
    "lr_end": 0.1,
    "grad_clip_max_norm": 1.0,
    "ema_decay": 0.0,
    "patience": 10,
    "validate_every": 1,
    "nan_check_interval": 4,
    "nan_policy": "skip",
    "max_consecutive_vetoes": 5,
    "seed": 0,
}


@pytest.fixture
def cells() -> TrainingCells:
    return training_cells(160, 12)


def training_cells(n_cells: int, n_genes: int) -> TrainingCells:
    adata = small_adata(n_cells, n_genes)
    vocabulary = Vocabulary.of(
        adata.obs["perturbation"], adata.obs["batch"], adata.obs["cell_type"], "control"
    )
    table = CellTable.from_adata(adata, vocabulary)
    is_val = np.arange(n_cells) % 5 == 0
    genes = list(adata.var_names)
    return TrainingCells(table.subset(~is_val), table.subset(is_val), vocabulary, genes)


def small_adata(n_cells: int, n_genes: int) -> AnnData:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "perturbation": rng.choice(["control", "A", "B", "A+B"], n_cells),
            "batch": rng.choice(["b1", "b2"], n_cells),
            "cell_type": rng.choice(["T", "B"], n_cells),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    rate = np.exp(rng.normal(size=n_genes)) * np.where(
        obs["perturbation"].str.contains("A").to_numpy()[:, None], np.linspace(0.5, 2, n_genes), 1
    )
    counts = csr_matrix(rng.poisson(rate).astype(np.float32))
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    return AnnData(obs=obs, var=var, layers={"counts": counts})


@pytest.fixture
def vae_config() -> VaeConfig:
    return VaeConfig(
        **LOOP,
        dim_int=4,
        dim_tech=2,
        hidden_dim=16,
        dropout=0.0,
        beta=1.0,
        tech_penalty=1.0,
        kl_warmup=0.3,
        lambda_batch=0.1,
        lambda_adv=0.0,
    )


@pytest.fixture(params=["control", "noise"])
def flow_config(request: pytest.FixtureRequest) -> FlowConfig:
    return flow_config_from(request.param)


def flow_config_from(source: Literal["control", "noise"]) -> FlowConfig:
    return FlowConfig(
        **LOOP,
        source=source,
        coupling="ot",
        recouple_every=1,
        hidden_dim=16,
        hidden_ctx=8,
        n_basis=4,
        n_neighbours=0,
        times="uniform",
        divergence="energy",
        lambda_dist=0.1,
        lambda_reg=0.01,
        dropout=0.0,
        label_dropout=0.1,
        mean_response=0.75,
    )


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)
