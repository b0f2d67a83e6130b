"""`mlflow run . [-e ENTRY] [-P section.key=value]` from a clean checkout."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.pipelines.conftest import SMALL, STAGES, Project, new_project


def runs_of(project: Project) -> list[Run]:
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments, order_by=["attributes.start_time ASC"]))


@pytest.mark.slow
def test_entry_with_a_parameter_then_the_whole(tmp_path: Path) -> None:
    project = new_project(tmp_path, SMALL)
    params = (project.folder / "params.yaml").read_text()
    local = ("--env-manager", "local")
    project.run("mlflow", "run", ".", "-e", "train_vae", "-P", "vae.beta=0.5", *local)
    assert (project.folder / "params.yaml").read_text() == params
    parent, *children = runs_of(project)
    assert parent.info.status == "FINISHED"
    assert [run.info.run_name for run in children] == ["simulate", "prepare", "train_vae"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in children} == {"FINISHED"}
    assert children[-1].data.params["vae.beta"] == "0.5"

    project.run("mlflow", "run", ".", *local)
    second = [
        run
        for run in runs_of(project)
        if run.info.run_id not in {known.info.run_id for known in (parent, *children)}
    ]
    parents = [run for run in second if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    stages = [run for run in second if run is not parents[0]]
    assert {run.data.tags["mlflow.parentRunId"] for run in stages} == {parents[0].info.run_id}
    # what the first run has made already (simulate, prepare) may come from DVC's cache
    assert [run.info.run_name for run in stages][-5:] == list(STAGES[2:])
    betas = {run.data.params.get("vae.beta") for run in stages} - {None}
    assert betas == {"0.1"}


@pytest.mark.slow
def test_misspelt_parameter_lists_the_valid_ones(tmp_path: Path) -> None:
    project = new_project(tmp_path, SMALL)
    output = project.run(
        *("mlflow", "run", ".", "-e", "train_vae", "-P", "vae.betta=0.5"),
        *("--env-manager", "local"),
        expect=1,
    )
    assert "no key 'betta' in section 'vae' (did you mean 'beta'?)" in output
