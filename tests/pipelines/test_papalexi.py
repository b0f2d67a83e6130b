"""25 knock-outs, a replicate of each of the 15 largest held out; the table is printed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.real_data import expect_ahead, repro


@pytest.mark.slow
def test_model_is_ahead_of_control_and_perturbed_mean(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    averages = repro(tmp_path, published("papalexi_thp1_crispr"), None)
    expect_ahead(averages, "control", "perturbed_mean")
    ours, additive = (averages[m]["energy_distance"] for m in ("model", "additive"))
    if ours >= additive:
        # Not reached yet (see docs/evaluation.md); shown with its figures in every run.
        pytest.xfail(f"energy distance {ours:.3f}, additive {additive:.3f}")
