"""The same two commands on any real data set: `cfmvc data add FILE`, `dvc repro evaluate`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.pipelines.conftest import Project, new_project

# The evaluation's first metrics; the others are in the table as well.
METRICS = ("pearson_delta", "pearson_delta_top50", "mse_top50", "energy_distance")
HIGHER = ("pearson_delta", "pearson_delta_top50")


# Of the intervals, which no test here looks at.
FEW_DRAWS = {"evaluate.n_draws": 2, "evaluate.n_bootstrap": 200}


def repro(
    folder: Path, file: Path, template_store: Path, values: dict[str, object]
) -> dict[str, Any]:
    """Run the pipeline as shipped but for ``values``, print its table, return its averages."""
    project: Project = new_project(folder, FEW_DRAWS | values, template_store)
    print(project.run("cfmvc", "data", "add", str(file)))
    project.run("dvc", "repro", "evaluate")
    print((project.folder / "results" / "evaluation.txt").read_text())
    return json.loads((project.folder / "results" / "evaluate.json").read_text())


def expect_ahead(
    averages: dict[str, Any], *baselines: str, metrics: Sequence[str] = METRICS
) -> None:
    """Expect the model to be ahead of the baselines on every metric."""
    for baseline in baselines:
        for metric in metrics:
            ours, theirs = averages["model"][metric], averages[baseline][metric]
            is_ahead = ours > theirs if metric in HIGHER else ours < theirs
            assert is_ahead, f"{metric}: model {ours:.3f}, {baseline} {theirs:.3f}"
