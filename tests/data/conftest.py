"""A small data set without a fault, and its configuration."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from cfmvc.data.config import DataConfig


def good_cells() -> AnnData:
    """60 cells x 12 genes: 2 batches x 2 cell types x (control, A, B), 5 cells each."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, (60, 12))
    counts[:, 0] += 1  # no empty cell
    number = np.arange(60)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(np.take(["control", "A", "B"], number % 3)),
            "batch": pd.Categorical(np.take(["b1", "b2"], number // 3 % 2)),
            "cell_type": pd.Categorical(np.take(["T", "B cell"], number // 6 % 2)),
        },
        index=[f"cell{i}" for i in number],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(12)])
    return AnnData(obs=obs, var=var, layers={"counts": csr_matrix(counts, dtype=np.float32)})


@pytest.fixture
def cells() -> AnnData:
    return good_cells()


@pytest.fixture
def config() -> DataConfig:
    return DataConfig(
        path="data/raw/cells.h5ad",
        counts_layer="counts",
        perturbation="perturbation",
        batch="batch",
        cell_type="cell_type",
        dose="dose",
        spatial="spatial",
        embeddings="perturbation_embeddings",
        control="control",
        separator="+",
        min_cells_per_stratum=5,
    )
