"""Interferon-beta in CD4 T cells, held out in both donors; the table is printed.

As a user would do it: `cfmvc data add FILE`, `dvc repro evaluate`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.conftest import new_project

# Fewer epochs than shipped, and still far ahead; few draws for intervals that no test
# looks at.
VALUES = {
    "split.held_out": [{"perturbation": "IFNb", "cell_type": "CD4 T cells"}],
    "vae.n_epochs": 20,
    "flow.n_epochs": 25,
    "evaluate.n_draws": 2,
    "evaluate.n_bootstrap": 200,
}
HIGHER = ("pearson_delta", "pearson_delta_top50")
LOWER = ("mse_top50", "energy_distance")


@pytest.mark.slow
def test_model_is_ahead_of_simple_arithmetic(
    published: Callable[[str], Path], template_store: Path, tmp_path: Path
) -> None:
    project = new_project(tmp_path, VALUES, template_store)
    print(project.run("cfmvc", "data", "add", str(published("kang_pbmc_ifnb"))))
    project.run("dvc", "repro", "evaluate")
    print((project.folder / "results" / "evaluation.txt").read_text())
    averages = json.loads((project.folder / "results" / "evaluate.json").read_text())
    model = averages["model"]
    for baseline in ("control", "perturbed_mean"):
        assert all(model[name] > averages[baseline][name] for name in HIGHER), baseline
        assert all(model[name] < averages[baseline][name] for name in LOWER), baseline
    assert model["energy_distance"] < averages["additive"]["energy_distance"]
