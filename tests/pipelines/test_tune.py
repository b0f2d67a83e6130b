"""Tuning as a user starts it: under DVC, under MLflow, and on to the registry."""

import csv
import json
import re
from pathlib import Path

import pytest

from tests.pipelines.conftest import Project, copy_of
from tests.pipelines.test_mlflow_run import runs_of


def trials(project: Project) -> list[dict[str, str]]:
    with (project.folder / "results/tune/trials.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_the_pipeline_tunes_nothing_and_says_how_to(built: Project) -> None:
    best = (built.folder / "results/tune/best_params.yaml").read_text()
    assert best.startswith("# No study yet: `cfmvc tune` or `dvc repro tune`")
    assert trials(built) == []
    assert not (built.folder / ".cfmvc" / "tune.db").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_from_dvc_over_mlflow_to_the_registry(built: Project, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path)
    project.change({"tune.n_trials": 2, "tune.n_cells": 20, "tune.n_looks": 1})
    project.commit("a short study")
    said = project.run("dvc", "repro", "tune")
    assert len(trials(project)) == 2
    study = re.search(r"study '(\S+)': 2 complete", said)
    assert study is not None, said
    assert "test (conditions that no trial has seen)" in said
    (run,) = [run for run in runs_of(project) if run.info.run_name == "tune"]
    assert "the chain holds" in project.run("cfmvc", "registry", "verify", run.info.run_id)

    said = project.run(
        *["mlflow", "run", ".", "--env-manager", "local", "-e", "tune", "-P", "n_trials=3"]
    )
    assert [row["trial"] for row in trials(project)] == ["0", "1", "2"], said
    assert "trial 1:" not in said, "those that were there are not carried out again"

    before = (project.folder / "params.yaml").read_text()
    options = ("--n-trials", "3", "--no-test", "--promote")
    said = project.run("cfmvc", "tune", *options, expect=3)
    assert "does not become champion" in said
    assert (project.folder / "params.yaml").read_text() == before
    shown = json.loads(project.run("cfmvc", "registry", "show", "candidate", "--json"))
    text = (project.folder / "results/tune/best_params.yaml").read_text()
    best = re.search(r"\ntrial: (\d+)", text)
    assert best is not None
    assert shown["tags"]["cfmvc.study"] == study[1]
    assert shown["tags"]["cfmvc.trial"] == best[1]

    wrong = project.run("cfmvc", "tune", "--set", "tune.sampler=tea", expect=2)
    assert "no sampler 'tea'" in wrong
