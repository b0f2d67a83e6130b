"""``cfmvc fit --resume`` after real kills: the weights of a fit that nobody has disturbed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.conftest import PROJECT
from tests.forked import ForkedModule
from tests.training.conftest import small_adata

SETTINGS = [
    "--set=vae.n_epochs=12",
    "--set=flow.n_epochs=12",
    "--set=flow.cells_per_step=16",
    "--set=flow.patience=100",
    "--set=vae.hidden_dim=32",
    "--set=compute.n_threads=1",
    "--set=checkpoint.every_seconds=0",
]


def fit(folder: Path, out: str, *more: str) -> ForkedModule:
    arguments = ("fit", "train.h5ad", "--out", out, *SETTINGS, *more)
    return ForkedModule("tests.cli.a_command", arguments, folder, os.environ)


def finished(process: ForkedModule, expect: int = 0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == expect, output
    return output


def wait_for_checkpoint(folder: Path, stage: str, process: ForkedModule) -> None:
    """Wait until the process has written one of its own."""

    def there() -> set[str]:
        return {path.name for path in (folder / f".killed.unfinished/{stage}").glob("step-*")}

    before = there()
    while not there() - before:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def weights(folder: Path, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / name).iterdir()}


def test_ctrl_c_saves_first(tmp_path: Path) -> None:
    small_adata(300, 25).write_h5ad(tmp_path / "train.h5ad")
    options = (*SETTINGS, "--set=vae.n_epochs=100000", "--set=vae.patience=100000")
    process = subprocess.Popen(
        [sys.executable, "-m", "cfmvc", "fit", "train.h5ad", "--out", "killed", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        text=True,
        stderr=subprocess.PIPE,
        # A suite that runs in the background of a script ignores Ctrl-C, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not list(tmp_path.glob(".killed.unfinished/train_vae/step-*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    stopped = r"error: train_vae: stopped by Ctrl-C after step (\d+); started again .*--resume\), "
    said = re.match(stopped, errors.splitlines()[-1])
    assert said is not None, errors
    newest = max(tmp_path.glob(".killed.unfinished/train_vae/step-*"))
    assert int(newest.name.split("-")[1]) == int(said[1])


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    small_adata(300, 25).write_h5ad(tmp_path / "train.h5ad")
    finished(fit(tmp_path, "whole"))
    rng = np.random.default_rng()
    for stage in ("train_vae", "train_vae", "train_flow"):
        process = fit(tmp_path, "killed", "--resume")
        wait_for_checkpoint(tmp_path, stage, process)
        time.sleep(rng.uniform(0, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    process = fit(tmp_path, "killed", "--resume")
    wait_for_checkpoint(tmp_path, "train_flow", process)
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM after step" in finished(process, expect=143)
    finished(fit(tmp_path, "killed", "--resume"))
    assert weights(tmp_path, "killed") == weights(tmp_path, "whole")
    assert not list(tmp_path.glob(".killed*"))


@pytest.mark.slow
def test_what_has_changed_is_not_gone_on_from(tmp_path: Path) -> None:
    small_adata(300, 25).write_h5ad(tmp_path / "train.h5ad")
    process = fit(tmp_path, "killed")
    wait_for_checkpoint(tmp_path, "train_vae", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "holds an unfinished fit" in finished(fit(tmp_path, "killed"), expect=2)
    output = finished(fit(tmp_path, "killed", "--resume", "--set=vae.lr=1e-2"), expect=6)
    assert "data, parameters or code have changed since" in output
    assert "to train from the start" in output


def tracked(folder: Path) -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client, list(client.search_runs(ids))


@pytest.mark.slow
def test_a_tracked_fit_goes_on_in_the_same_run(tmp_path: Path) -> None:
    """Killed in either stage; the second is refused while the first is at work."""
    small_adata(300, 25).write_h5ad(tmp_path / "train.h5ad")
    for stage in ("train_vae", "train_flow"):
        process = fit(tmp_path, "killed", "--resume", "--track")
        wait_for_checkpoint(tmp_path, stage, process)
        os.killpg(process.pid, signal.SIGSTOP)
        said = finished(fit(tmp_path, "killed", "--resume"), expect=6)
        assert f"process {process.pid} of" in said
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finished(fit(tmp_path, "killed", "--resume", "--track"))
    client, (run,) = tracked(tmp_path)
    assert (run.info.status, run.data.tags["cfmvc.resumed"]) == ("FINISHED", "2")
    for name, n_epochs in (("vae_epoch", 12), ("flow_epoch", 12)):
        epochs = [point.value for point in client.get_metric_history(run.info.run_id, name)]
        assert epochs == list(range(1, len(epochs) + 1))
        assert len(epochs) <= n_epochs
    assert not list(tmp_path.glob(".killed*"))


@pytest.mark.slow
def test_tracked_from_the_middle_on_the_run_has_all_of_it(tmp_path: Path) -> None:
    small_adata(300, 25).write_h5ad(tmp_path / "train.h5ad")
    process = fit(tmp_path, "killed")
    wait_for_checkpoint(tmp_path, "train_flow", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished(fit(tmp_path, "killed", "--resume", "--track"))
    client, (run,) = tracked(tmp_path)
    assert "cfmvc.resumed" not in run.data.tags
    for name in ("vae_epoch", "flow_epoch"):
        epochs = [point.value for point in client.get_metric_history(run.info.run_id, name)]
        assert epochs == list(range(1, len(epochs) + 1))
