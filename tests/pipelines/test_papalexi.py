"""25 knock-outs, a replicate of each of the 15 largest held out; the table is printed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.real_data import expect_ahead, repro


@pytest.mark.slow
def test_model_is_ahead_of_simple_arithmetic(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    averages = repro(tmp_path, published("papalexi_thp1_crispr"), None)
    expect_ahead(averages, "control", "perturbed_mean")
    assert averages["model"]["energy_distance"] < averages["additive"]["energy_distance"]
