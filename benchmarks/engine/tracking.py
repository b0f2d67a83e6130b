"""What tracking costs: the pipeline's stage 1 with its MLflow run, against the same without."""

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from benchmarks.engine.cells import section
from benchmarks.engine.rounds import rounds, spread
from benchmarks.engine.row import Bar, Row
from benchmarks.engine.setting import Setting
from cfmvc.data.config import SimulateConfig
from cfmvc.data.simulate import simulate

BAR = Bar(2.0, "at_most", "ours", " %")
_SECONDS = 25.0  # of a training: 2 % of it must be more than what timing it errs by
_TRIED_EPOCHS = 10
_PROJECT = Path(__file__).resolve().parents[2]
_OUTSIDE = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "CFMVC_PARENT_RUN", "DVC_EXP_NAME")

Took = dict[str, float]


@dataclass
class Trainings:
    """Both sides in one workspace, whose store exists before anything is measured.

    Parameters
    ----------
    workspace
        A folder with ``cells.h5ad``.
    n_epochs
        Of each training.
    """

    workspace: Path
    n_epochs: int
    took: dict[str, list[Took]] = field(default_factory=lambda: {"on": [], "off": []})

    def once(self, name: str) -> float:
        """Train ``on`` or ``off``; return the seconds of the training alone."""
        took = _trained(self.workspace, self.n_epochs, name == "on")
        self.took[name].append(took)
        return took["training"]

    def seconds(self, name: str, part: str) -> str:
        """Return what a part took, in words."""
        return spread([took[part] for took in self.took[name]]).text(" s")


def run(setting: Setting) -> list[Row]:
    """Measure the row on data of the default size."""
    return [measured(section("simulate", SimulateConfig), _SECONDS, setting.n_rounds)]


def measured(simulated: SimulateConfig, seconds: float, n_rounds: int) -> Row:
    """Measure the row with trainings of about so many seconds."""
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name)
        _write_cells(simulated, workspace / "cells.h5ad")
        _trained(workspace, 1, is_tracked=True)  # makes the store, and warms the file cache
        tried = _trained(workspace, _TRIED_EPOCHS, is_tracked=False)["training"]
        both = Trainings(workspace, math.ceil(seconds / tried * _TRIED_EPOCHS))
        seen = rounds({"off": lambda: both.once("off"), "on": lambda: both.once("on")}, n_rounds)
        is_complete = _is_in_store(workspace, both.took["on"][-1])
    overheads = [100.0 * (on / off - 1.0) for on, off in zip(seen["on"], seen["off"], strict=True)]
    last = both.took["on"][-1]
    return Row(
        "tracking on against off, stage 1: time of the training more",
        spread(overheads),
        unit="%",
        bar=BAR,
        holds={"all figures of the last run are in the store": is_complete},
        notes=[
            f"a process each; with the run {both.seconds('on', 'training')}, without "
            f"{both.seconds('off', 'training')}; overhead within each round",
            f"{simulated.n_cells:,} cells x {simulated.n_genes:,} genes, {int(last['n_epochs'])} "
            f"epochs, metrics and memory each epoch, {int(last['n_events'])} events (one cell has "
            "a NaN count), its black box; an SQLite store that exists; "
            "values of params.yaml but for n_epochs and patience",
            f"besides: opening the run {both.seconds('on', 'opening')}, closing it (all sent) "
            f"{both.seconds('on', 'closing')}; MLflow is imported by the process that sends",
        ],
    )


def _write_cells(simulated: SimulateConfig, path: Path) -> None:
    """Write cells as the stages read them; one has a NaN count, so that there are events."""
    cells, _ = simulate(simulated)
    is_val = np.random.default_rng(0).random(cells.n_obs) < 0.1
    is_val[0] = False
    cells.obs["split"] = np.where(is_val, "val", "train")
    counts = cells.layers["counts"].astype(np.float32)
    counts.data[counts.indptr[0]] = np.nan
    cells.layers["counts"] = counts
    cells.write_h5ad(path)


def _trained(workspace: Path, n_epochs: int, is_tracked: bool) -> Took:
    asked = {"workspace": str(workspace), "n_epochs": n_epochs, "is_tracked": is_tracked}
    kept = {name: value for name, value in os.environ.items() if name not in _OUTSIDE}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine.tracked_training", json.dumps(asked)],
        cwd=_PROJECT,
        env=kept,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _is_in_store(workspace: Path, took: Took) -> bool:
    """Return whether the newest run has a loss of each epoch, and each event."""
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    experiments = [found.experiment_id for found in client.search_experiments()]
    newest = client.search_runs(experiments, order_by=["attributes.start_time DESC"])[0]
    losses = client.get_metric_history(newest.info.run_id, "train_loss")
    n_events = newest.data.metrics.get("nan_events", 0.0)
    is_whole = len(losses) == took["n_epochs"] and n_events == took["n_epochs"]
    return is_whole and newest.info.status == "FINISHED"
