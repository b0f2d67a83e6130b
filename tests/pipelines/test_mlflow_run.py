"""`mlflow run . [-e ENTRY] [-P section.key=value]` from a clean checkout."""

import signal
import subprocess
import time
from collections.abc import Collection
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.pipelines.conftest import STAGES, Project, copy_of

LOCAL = ("--env-manager", "local")


def runs_of(project: Project, but: Collection[str] = ()) -> list[Run]:
    """Return the runs of a project's store, the oldest first, but for those of certain ids."""
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
    return [run for run in runs if run.info.run_id not in but]


def run_entry(project: Project, *options: str) -> tuple[Run, list[Run]]:
    """Run an entry, and return the parent and the children that it has made."""
    earlier = {run.info.run_id for run in runs_of(project)}
    project.run("mlflow", "run", ".", *options, *LOCAL)
    made = runs_of(project, but=earlier)
    (parent,) = [run for run in made if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in made if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in made} == {"FINISHED"}
    return parent, children


@pytest.mark.slow
def test_entry_with_a_parameter_then_the_whole(built: Project, tmp_path: Path) -> None:
    """What DVC has already it makes no second time; from nothing is the last test of this file."""
    project = copy_of(built, tmp_path)
    params = (project.folder / "params.yaml").read_text()
    _, children = run_entry(project, "-e", "train_vae", "-P", "vae.beta=0.5")
    assert (project.folder / "params.yaml").read_text() == params
    assert [run.info.run_name for run in children] == ["train_vae"]
    assert children[0].data.params["vae.beta"] == "0.5"

    project.change({"generate.seed": 7})
    _, children = run_entry(project)
    # with the models of before: that of the experiment would have asked for another flow
    assert [run.info.run_name for run in children] == list(STAGES[4:])
    before, after = built.outs(), project.outs()
    assert after["models/flow"] == before["models/flow"]
    assert after["results/generated.h5ad"] != before["results/generated.h5ad"]


@pytest.mark.slow
def test_misspelt_parameter_lists_the_valid_ones(project: Project) -> None:
    output = project.run(
        *("mlflow", "run", ".", "-e", "train_vae", "-P", "vae.betta=0.5", *LOCAL), expect=1
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


def stage_at_work(
    process: "subprocess.Popen[str]", project: Project, earlier: Collection[str]
) -> psutil.Process:
    """Wait until ``train_vae`` has a run with figures, and return its process."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        if stages := below(process, "pipelines.train_vae"):
            made = runs_of(project, but=earlier)
            runs = [run for run in made if run.info.run_name == "train_vae"]
            if runs and runs[0].data.metrics:
                return stages[0]
    process.kill()
    raise TimeoutError(process.communicate()[0])


@pytest.mark.slow
def test_a_stopped_entry_leaves_nobody_at_work(built: Project, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path)
    project.change({"vae.n_epochs": 100_000, "vae.patience": 100_000})
    earlier = {run.info.run_id for run in runs_of(project)}
    process = project.start("mlflow", "run", ".", "-e", "train_vae", *LOCAL)
    stage = stage_at_work(process, project, earlier)
    (entry,) = below(process, "pipelines.mlflow_entry")
    workers = [entry, *entry.children(recursive=True)]
    assert stage in workers
    entry.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE] == []
    parent, *children = runs_of(project, but=earlier)
    assert parent.info.status == "FAILED"
    assert {run.info.run_name: run.info.status for run in children} == {
        "train_vae": "KILLED",
    }
    assert max(run.info.end_time for run in children) <= parent.info.end_time
