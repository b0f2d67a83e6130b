"""``cfmvc fit --track``: a run of its own, with where it came from and how it went."""

from pathlib import Path

import pytest

from cfmvc.files import md5_of_file
from cfmvc.tracking.store import Store
from tests.cli.test_fit_predict import QUICK, cfmvc
from tests.training.conftest import small_adata


def test_a_tracked_fit_says_what_it_came_from_and_how_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_file = tmp_path / "train.h5ad"
    small_adata(300, 25).write_h5ad(train_file)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.chdir(tmp_path)
    more = ("--set", "joint.n_epochs=1", "--set", "data.min_cells_per_stratum=3", "--track")
    result = cfmvc("fit", train_file, "--out", "model", *QUICK, *more)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    store = Store.connect(f"sqlite:///{tmp_path / 'runs.db'}", tmp_path)
    (run,) = store.find_runs(store.experiment_ids(), "")
    assert (run.info.run_name, run.info.status) == ("fit", "FINISHED")
    expected = {"data.path": str(train_file), "compute.n_threads": "1"}
    expected |= {"data.min_cells_per_stratum": "3", "joint.n_epochs": "1"}
    assert run.data.params.items() >= expected.items()
    assert run.data.tags["cfmvc.data_md5"] == md5_of_file(train_file)
    assert {"vae_train_loss", "flow_train_loss", "joint_best_val_loss"} <= set(run.data.metrics)
    files = {item.path for item in store.client.list_artifacts(run.info.run_id)}
    curves = {f"{stage}_loss_curves.png" for stage in ("vae", "flow", "joint")}
    assert files >= curves | {"latents.png", "environment.json"}
