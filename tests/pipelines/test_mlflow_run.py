"""`mlflow run . [-e ENTRY] [-P section.key=value]` from a clean checkout."""

import signal
import subprocess
import time
from pathlib import Path

import psutil
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


def below(process: "subprocess.Popen[str]", module: str) -> list[psutil.Process]:
    """Return the descendants of a process that run a module."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.cmdline()[1:3] == ["-m", module]:
                found.append(child)
        except psutil.Error:
            continue
    return found


def stage_at_work(process: "subprocess.Popen[str]", project: Project) -> psutil.Process:
    """Wait until ``train_vae`` has a run with figures, and return its process."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        # The store is looked into when earlier stages have made it, not in the middle of that.
        if stages := below(process, "pipelines.train_vae"):
            runs = [run for run in runs_of(project) if run.info.run_name == "train_vae"]
            if runs and runs[0].data.metrics:
                return stages[0]
    process.kill()
    raise TimeoutError(process.communicate()[0])


@pytest.mark.slow
def test_a_stopped_entry_leaves_nobody_at_work(tmp_path: Path) -> None:
    project = new_project(tmp_path, {**SMALL, "vae.n_epochs": 100_000, "vae.patience": 100_000})
    process = project.start(*("mlflow", "run", ".", "-e", "train_vae", "--env-manager", "local"))
    stage = stage_at_work(process, project)
    (entry,) = below(process, "pipelines.mlflow_entry")
    workers = [entry, *entry.children(recursive=True)]
    assert stage in workers
    entry.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE] == []
    parent, *children = runs_of(project)
    assert parent.info.status == "FAILED"
    assert {run.info.run_name: run.info.status for run in children} == {
        "simulate": "FINISHED",
        "prepare": "FINISHED",
        "train_vae": "KILLED",
    }
    assert max(run.info.end_time for run in children) <= parent.info.end_time
