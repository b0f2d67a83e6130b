"""Interferon-beta in CD4 T cells, held out in both donors; the table is printed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.real_data import expect_ahead, repro

# Fewer epochs than shipped (80 each), and still far ahead.
VALUES = {
    "split.held_out": [{"perturbation": "IFNb", "cell_type": "CD4 T cells"}],
    "vae.n_epochs": 20,
    "flow.n_epochs": 25,
}


@pytest.mark.slow
def test_model_is_ahead_of_simple_arithmetic(
    published: Callable[[str], Path], template_store: Path, tmp_path: Path
) -> None:
    averages = repro(tmp_path, published("kang_pbmc_ifnb"), template_store, VALUES)
    expect_ahead(averages, "control", "perturbed_mean")
    assert averages["model"]["energy_distance"] < averages["additive"]["energy_distance"]
