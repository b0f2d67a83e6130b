"""Interferon-beta in CD4 T cells, held out in both donors; the table is printed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.real_data import expect_ahead, repro


@pytest.mark.slow
def test_model_is_ahead_of_simple_arithmetic(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    held_out = [{"perturbation": "IFNb", "cell_type": "CD4 T cells"}]
    averages = repro(tmp_path, published("kang_pbmc_ifnb"), held_out)
    expect_ahead(averages, "control", "perturbed_mean")
    assert averages["model"]["energy_distance"] < averages["additive"]["energy_distance"]
