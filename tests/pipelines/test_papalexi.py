"""25 knock-outs, a replicate of each of the 15 largest held out; the table is printed."""

from collections.abc import Callable
from pathlib import Path

import anndata
import pytest

from tests.pipelines.real_data import expect_ahead, repro

# Fewer epochs than shipped (80 each). The model is ahead of the mean of the perturbed in
# the correlations as well, but after so few by less than another processor's rounding is worth.
VALUES = {"split.held_out": None, "vae.n_epochs": 12, "flow.n_epochs": 20}
FAR_AHEAD = ("mse_top50", "energy_distance")


@pytest.mark.slow
def test_model_is_ahead_of_simple_arithmetic(
    published: Callable[[str], Path], template_store: Path, tmp_path: Path
) -> None:
    cells = anndata.read_h5ad(published("papalexi_thp1_crispr"))
    half = tmp_path / "half.h5ad"
    cells[::2].write_h5ad(half)
    averages = repro(tmp_path, half, template_store, VALUES)
    expect_ahead(averages, "control")
    expect_ahead(averages, "perturbed_mean", metrics=FAR_AHEAD)
    assert averages["model"]["energy_distance"] < averages["additive"]["energy_distance"]
