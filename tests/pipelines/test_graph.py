"""The graph does what it should, and nothing twice."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cfmvc.evaluation import METRICS
from tests.pipelines.conftest import Project, copy_of, stages_run


def test_second_repro_does_nothing(built: Project) -> None:
    output = built.run("dvc", "repro")
    assert stages_run(output) == []
    assert "no study is carried out" in output


def test_every_stage_says_what_it_made(built: Project) -> None:
    results = built.folder / "results"
    averages = json.loads((results / "evaluate.json").read_text())
    assert {"model", "control", "perturbed_mean", "additive", "ceiling"} <= set(averages)
    assert set(averages["model"]) <= set(METRICS)
    table = pd.read_csv(results / "per_condition.csv")
    assert set(table["method"]) >= {"model", "additive"}
    page = (results / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "data/raw/simulated.h5ad" in page
    assert all(condition in page for condition in set(table["condition"]))
    assert json.loads((results / "registered.json").read_text())["version"] == 1
    summary = built.run("cfmvc", "summary")
    assert "models:/cfmvc@candidate" in summary
    assert "energy distance" in summary
    assert json.loads(built.run("cfmvc", "summary", "--json"))["registered"]["name"] == "cfmvc"


def test_dvc_shows_metrics_and_plots(built: Project) -> None:
    shown = json.loads(built.run("dvc", "metrics", "show", "--json"))
    files = next(iter(shown.values()))["data"]
    evaluation = files["results/evaluate.json"]["data"]
    assert evaluation["model"]["energy_distance"] >= -1
    assert files["results/train_vae.json"]["data"]["nan_steps"] == 0
    built.run("dvc", "plots", "show", "--out", "plots-page")
    assert (built.folder / "plots-page" / "index.html").stat().st_size > 10_000


@pytest.mark.slow
def test_changes_reach_no_further_than_they_should(built: Project, tmp_path: Path) -> None:
    """Those of what is generated, and what follows, are seen in test_mlflow_run."""
    project = copy_of(built, tmp_path)
    before = project.outs()
    project.change({"tracking.experiment": "elsewhere", "tracking.flush_seconds": 5})
    assert stages_run(project.run("dvc", "repro")) == []

    project.change({"flow.n_epochs": 2})
    assert stages_run(project.run("dvc", "repro", "train_flow")) == ["train_flow"]
    after = project.outs()
    assert after["models/flow"] != before["models/flow"]
    assert after["models/vae"] == before["models/vae"]
    # A dry run makes nothing, so that what follows these has still its inputs of before.
    assert stages_run(project.run("dvc", "repro", "--dry")) == ["generate", "register"]


def test_a_missing_or_unknown_parameter_stops_the_stage(built: Project, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path)
    shutil.rmtree(project.folder / "models")
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("  n_epochs: 3", "  n_epoch: 3", 1))
    output = project.run("dvc", "repro", "train_vae", expect=255)
    assert "vae.n_epoch: unknown key (did you mean 'n_epochs'?)" in output
    assert "vae.n_epochs: missing" in output
    assert not Path(project.folder / "models" / "vae").exists()
