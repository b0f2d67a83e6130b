"""What a person finds in MLflow after `dvc repro`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.pipelines.conftest import STAGES, Project


@pytest.fixture(scope="module")
def client(built: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{built.folder / 'mlflow.db'}")


@pytest.fixture(scope="module")
def runs(client: MlflowClient) -> dict[str, Run]:
    experiment = client.get_experiment_by_name("cfmvc")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {
        "parent" if "mlflow.parentRunId" not in r.data.tags else r.info.run_name: r for r in found
    }


def names(client: MlflowClient, run: Run, folder: str | None = None) -> set[str]:
    return {item.path for item in client.list_artifacts(run.info.run_id, folder)}


def test_one_parent_and_a_child_for_each_stage(runs: dict[str, Run]) -> None:
    assert set(runs) == {"parent", *STAGES}
    parent = runs["parent"]
    for stage in STAGES:
        assert runs[stage].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert runs[stage].info.status == "FINISHED"
    assert parent.info.status == "FINISHED"


def test_training_has_parameters_metrics_with_steps_and_pictures(
    client: MlflowClient, runs: dict[str, Run]
) -> None:
    for stage, part in (("train_vae", "reconstruction"), ("train_flow", "fm")):
        run = runs[stage]
        section = stage.removeprefix("train_")
        assert run.data.params[f"{section}.n_epochs"] == "3"
        expected = {"train_loss", "val_loss", f"train_{part}", f"val_{part}", "grad_norm", "lr"}
        expected |= {"cells_per_second", "step_seconds", "peak_rss_gib", "epoch"}
        expected |= {"estimated_peak_memory_gib"}
        assert expected <= set(run.data.metrics)
        history = client.get_metric_history(run.info.run_id, "train_loss")
        steps = [metric.step for metric in history]
        assert len(set(steps)) == 3
        assert steps == sorted(steps)
        pictures = {Path(p).name for p in names(client, run, "pictures") | names(client, run)}
        assert {"loss_curves.png", "latents.png"} <= pictures
        assert "environment.json" in names(client, run)


def test_lineage_leads_to_code_and_data(built: Project, runs: dict[str, Run]) -> None:
    commit = built.run("git", "rev-parse", "HEAD").strip()
    split = json.loads((built.folder / "data" / "prepared" / "split.json").read_text())
    for stage in STAGES:
        tags = runs[stage].data.tags
        assert tags["cfmvc.git_commit"] == commit
        assert tags["cfmvc.git_dirty"] == "false"
    tags = runs["register"].data.tags
    assert split["sha256"] in tags.values()
    assert split["data_md5"] in tags.values()


def test_outputs_lead_to_their_runs(built: Project, runs: dict[str, Run]) -> None:
    for stage in STAGES[1:]:
        link = json.loads((built.folder / "results" / "runs" / f"{stage}.json").read_text())
        assert runs[stage].data.tags["cfmvc.uid"] == link["uid"]


def test_registered_model_gives_cells_anywhere(
    built: Project, client: MlflowClient, tmp_path: Path
) -> None:
    version = client.get_model_version_by_alias("cfmvc", "candidate")
    assert int(version.version) == 1
    code = (
        "import mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/cfmvc@candidate')\n"
        "asked = pd.DataFrame({'perturbation': ['P1', 'control'], 'batch': 'batch_1',\n"
        "                      'cell_type': 'type_1', 'n_cells': [3, 2]})\n"
        "cells = model.predict(asked, params={'seed': 1})\n"
        "again = model.predict(asked, params={'seed': 1})\n"
        "assert cells.equals(again)\n"
        "assert cells['perturbation'].tolist() == ['P1'] * 3 + ['control'] * 2\n"
        "assert cells.shape == (5, 63), cells.shape\n"
        "assert (cells.iloc[:, 3:] % 1 == 0).all().all()\n"
    )
    env = built.env | {"MLFLOW_TRACKING_URI": f"sqlite:///{built.folder / 'mlflow.db'}"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)


def test_registered_model_has_no_pickle(built: Project) -> None:
    files = [path.name for path in (built.folder / "mlartifacts").rglob("*") if path.is_file()]
    assert "weights.safetensors" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]


def test_predict_from_the_registry(built: Project, tmp_path: Path) -> None:
    conditions = tmp_path / "conditions.csv"
    conditions.write_text("perturbation,batch,cell_type,n_cells\nP2,batch_2,type_2,5\n")
    out = tmp_path / "pred.h5ad"
    output = built.run(
        *("cfmvc", "predict", "--model", "models:/cfmvc@candidate", "--out", str(out)),
        *("--conditions", str(conditions), "--controls", "data/raw/simulated.h5ad"),
    )
    assert "5 virtual cells of 1 conditions" in output
    assert os.path.getsize(out) > 0
