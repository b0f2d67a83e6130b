"""`cfmvc data add`, then the pipeline on that file."""

import json
from pathlib import Path

import pytest

from tests.pipelines.conftest import SMALL, Project, new_project


@pytest.mark.slow
def test_an_added_file_is_there_for_a_run_with_parameters(
    tmp_path: Path, template_store: Path
) -> None:
    """The experiment is what `mlflow run` makes of parameters: see test_mlflow_run."""
    project = new_project(tmp_path, SMALL, template_store)
    theirs = tmp_path / "theirs.h5ad"
    project.run("cfmvc", "simulate", "--out", str(theirs), "--set", "simulate.seed=7")
    project.run("cfmvc", "data", "add", str(theirs))
    assert "theirs.h5ad.dvc" in project.run("dvc", "stage", "list", "--all")
    project.run("dvc", "exp", "run", "--temp", "--set-param", "split.seed=3", "prepare")
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    experiments = [e for rev in shown for e in rev.get("experiments") or []]
    assert len(experiments) == 1
    params = experiments[0]["revs"][0]["data"]["params"]["params.yaml"]["data"]
    assert params["split"]["seed"] == 3
    assert params["data"]["path"] == "data/raw/theirs.h5ad"
    project.commit("data of their own")
    assert "theirs.h5ad.dvc" in project.run("dvc", "stage", "list", "--all")


def test_git_sees_pointers_and_no_cells(project: Project) -> None:
    """Nor what a killed process leaves of a file that it was writing."""
    raw = project.folder / "data" / "raw"
    (raw / ".theirs.h5ad.x1y2").mkdir(parents=True)
    for name in (".theirs.h5ad.x1y2/theirs.h5ad", "theirs.h5ad", "theirs.h5ad.dvc"):
        (raw / name).touch()
    shown = project.run("git", "status", "--porcelain", "--untracked-files=all")
    assert shown == "?? data/raw/theirs.h5ad.dvc\n"
