"""The benchmark's own pipeline: its folds and seeds as stages, and out of plain repro's way."""

import shutil
from pathlib import Path

import pytest

from tests.pipelines.conftest import STAGES, Project, copy_of, stages_run

PIPELINE = "pipelines/benchmark/dvc.yaml"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_folds_and_seeds_are_stages_of_a_pipeline_of_their_own(
    built: Project, tmp_path: Path
) -> None:
    assert not (built.folder / "results" / "benchmark").exists(), "plain repro leaves it alone"
    project = copy_of(built, tmp_path)
    settings = project.folder / "pipelines" / "benchmark" / "settings.yaml"
    settings.write_text("task: held_out_cell_type\nfolds: [1, 2]\nseeds: [0]\n")
    said = project.run("dvc", "repro", PIPELINE)
    for stage in ("fold@1-0", "fold@2-0", "table"):
        assert f"Running stage '{PIPELINE}:{stage}'" in said
    assert set(stages_run(said)) <= set(STAGES[:1]), "the data alone are asked of the other one"
    table = project.folder / "results" / "benchmark" / "table" / "held_out_cell_type" / "table.md"
    assert "mean over 2 folds" in table.read_text()

    assert "up to date" in project.run("dvc", "status", PIPELINE)
    # one fold again, with a seed more: what the other has made would not be complete
    shutil.rmtree(project.folder / "results/benchmark/parts/held_out_cell_type/1-0")
    settings.write_text("task: held_out_cell_type\nfolds: [2]\nseeds: [0, 1]\n")
    said = project.run("dvc", "repro", PIPELINE)
    assert f"Running stage '{PIPELINE}:fold@2-1'" in said
    assert f"Running stage '{PIPELINE}:fold@2-0'" not in said
    assert "and 2 seeds" in table.read_text()
