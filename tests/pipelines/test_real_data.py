"""Two commands on real data: `cfmvc data add FILE`, `dvc repro`; the table is printed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.conftest import Project, new_project

# The evaluation's first metrics; the others are in the table as well.
METRICS = ("pearson_delta", "pearson_delta_top50", "mse_top50", "energy_distance")
HIGHER = ("pearson_delta", "pearson_delta_top50")


def is_ahead(model: dict[str, float], other: dict[str, float], metric: str) -> bool:
    if metric in HIGHER:
        return model[metric] > other[metric]
    return model[metric] < other[metric]


def repro(folder: Path, file: Path, held_out: list[dict[str, str]] | None = None) -> dict:
    project: Project = new_project(folder, {"split.held_out": held_out})
    print(project.run("cfmvc", "data", "add", str(file)))
    project.run("dvc", "repro")
    print(project.run("cfmvc", "summary"))
    return json.loads((project.folder / "results" / "evaluate.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kang_pbmc_ifnb", "papalexi_thp1_crispr"])
def test_model_is_ahead_of_the_simple_baselines(
    name: str, published: Callable[[str], Path], tmp_path: Path
) -> None:
    held_out = None  # Papalexi: one replicate of each of the 15 largest knock-outs
    if name.startswith("kang"):
        held_out = [{"perturbation": "IFNb", "cell_type": "CD4 T cells"}]
    averages = repro(tmp_path, published(name), held_out)
    model = averages["model"]
    for baseline in ("control", "perturbed_mean"):
        for metric in METRICS:
            assert is_ahead(model, averages[baseline], metric), (baseline, metric)
    ours, additive = (averages[m]["energy_distance"] for m in ("model", "additive"))
    if name.startswith("papalexi") and ours >= additive:
        # Not reached yet (see docs/evaluation.md); shown with its figures in every run.
        pytest.xfail(f"energy distance {ours:.3f}, additive {additive:.3f}")
    assert ours < additive
