"""A stage that was killed, and is run again, goes on in the MLflow run that it had."""

import json
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.pipelines.conftest import Project, copy_of

VALUES = {
    "vae.n_epochs": 40,
    "vae.patience": 40,
    "checkpoint.every_seconds": 0,
}


def runs_of(project: Project, but: Collection[str] = ()) -> tuple[MlflowClient, list[Run]]:
    """Return the runs of a project's store, but for those of certain ids."""
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids, order_by=["attributes.start_time ASC"])
    return client, [run for run in runs if run.info.run_id not in but]


def kill_in_training(project: Project, stage: str) -> None:
    process = project.start("dvc", "repro", stage)
    kept = project.folder / ".cfmvc" / "checkpoints" / stage
    before = set(kept.glob("step-*"))
    while not set(kept.glob("step-*")) - before:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_killed_stage_goes_on_in_its_run_below_its_parent(built: Project, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path)
    earlier = {run.info.run_id for run in runs_of(project)[1]}
    project.change(VALUES)
    project.commit("longer")
    kill_in_training(project, "train_vae")
    project.run("dvc", "repro", "train_vae")
    client, runs = runs_of(project, earlier)
    (run,) = [run for run in runs if run.info.run_name == "train_vae"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["cfmvc.resumed"] == "1"
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"
    link = json.loads((project.folder / "results" / "runs" / "train_vae.json").read_text())
    assert link["uid"] == run.data.tags["cfmvc.uid"]
    assert list((project.folder / ".cfmvc" / "checkpoints").iterdir()) == []
    # what it went on with is what it keeps
    assert "the chain holds" in project.run("cfmvc", "registry", "verify", link["uid"])

    project.run("dvc", "repro", "--force", "--single-item", "train_vae")
    client, runs = runs_of(project, earlier)
    (whole,) = [
        other
        for other in runs
        if other.info.run_name == "train_vae" and other.info.run_id != run.info.run_id
    ]
    assert "cfmvc.resumed" not in whole.data.tags
    for name in ("epoch", "train_loss", "val_loss", "grad_norm", "best_epoch"):
        points = [
            [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
            for run_id in (run.info.run_id, whole.info.run_id)
        ]
        assert points[0] == points[1], name
