"""25 knock-outs, a replicate of each of the 15 largest held out; the table is printed."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import pytest

from tests.pipelines.real_data import expect_ahead, repro


@pytest.mark.slow
def test_model_is_ahead_of_simple_arithmetic(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    """On every second cell: all of them would be a quarter of the suite's time."""
    half = tmp_path / "papalexi_half.h5ad"
    ad.read_h5ad(published("papalexi_thp1_crispr"))[::2].write_h5ad(half)
    averages = repro(tmp_path, half, None)
    expect_ahead(averages, "control", "perturbed_mean")
    assert averages["model"]["energy_distance"] < averages["additive"]["energy_distance"]
