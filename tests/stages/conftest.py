"""A tissue, and models that have seen it, trained for a blink."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from anndata import AnnData

from cfmvc.config import default_params_file, parse_section, read_yaml
from cfmvc.data import CellTable, Vocabulary
from cfmvc.models import Bundle
from cfmvc.stages import TrainingCells, fit_flow, fit_vae
from cfmvc.training.config import FlowConfig, VaeConfig
from tests.training.conftest import small_adata

Fit = Callable[..., Bundle]


def small_tissue(n_cells: int = 300, n_genes: int = 20, n_coordinates: int = 2) -> AnnData:
    cells = small_adata(n_cells, n_genes)
    places = np.random.default_rng(1).uniform(0, 100, (n_cells, n_coordinates))
    cells.obsm["spatial"] = places.astype(np.float32)
    return cells


def tables_of(cells: AnnData) -> TrainingCells:
    """Return the cells as a stage takes them, every tenth to validate."""
    vocabulary = Vocabulary.of(
        cells.obs["perturbation"], cells.obs["batch"], cells.obs["cell_type"], "control"
    )
    table = CellTable.from_adata(cells, vocabulary)
    is_val = np.arange(len(table)) % 10 == 0
    parts = table.subset(~is_val), table.subset(is_val)
    return TrainingCells(*parts, vocabulary, list(cells.var_names))


def fit(
    cells: AnnData,
    n_epochs: int = 1,
    source: Literal["control", "noise"] = "control",
    flow: dict[str, Any] | None = None,
    **vae: Any,
) -> Bundle:
    """Train both stages with the parameters as shipped, but for a few."""
    params, training = read_yaml(default_params_file()), tables_of(cells)
    vae = {**params["vae"], "n_epochs": n_epochs, "hidden_dim": 16, **vae}
    flow = {**params["flow"], "n_epochs": n_epochs, "source": source, **(flow or {})}
    device = torch.device("cpu")
    bundle, _ = fit_vae(training, parse_section(VaeConfig, vae, "vae"), device, [])
    return fit_flow(bundle, training, parse_section(FlowConfig, flow, "flow"), device, [])[0]


@pytest.fixture
def tissue() -> AnnData:
    return small_tissue()


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return fit(small_tissue())


@pytest.fixture(scope="session")
def placeless() -> Bundle:
    cells = small_tissue()
    del cells.obsm["spatial"]
    return fit(cells)
