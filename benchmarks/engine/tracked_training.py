"""Stage 1 as the pipeline trains it, with or without its MLflow run, in a process of its own.

Run by ``benchmarks.engine.tracking``: ``python -m benchmarks.engine.tracked_training JSON``; prints
one JSON line with what it took.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engine.cells import section
from cfmvc.stages.checkpointing import CheckpointConfig, engine_of
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.prepared import load_training_cells
from cfmvc.stages.vae import fit_vae
from cfmvc.tracking.callback import watchers
from cfmvc.tracking.config import TrackingConfig
from cfmvc.tracking.run import stage_run
from cfmvc.tracking.tracker import NullTracker, Tracker
from cfmvc.training.config import VaeConfig


@contextmanager
def opened(is_tracked: bool, workspace: Path) -> Iterator[Tracker]:
    """Yield the tracker of a stage's run, or one that forgets everything."""
    if not is_tracked:
        yield NullTracker()
        return
    with stage_run("train_vae", workspace, section("tracking", TrackingConfig)) as tracker:
        yield tracker


def trained(workspace: Path, n_epochs: int, is_tracked: bool) -> dict[str, float]:
    """Do what ``pipelines.train_vae`` does up to the pictures; return seconds, and what happened.

    Parameters
    ----------
    workspace
        Has the cells (``cells.h5ad``), and gets store, checkpoints and black boxes.
    n_epochs
        How long to train; patience is not lost before.
    is_tracked
        Whether there is a run.
    """
    vae = section("vae", VaeConfig, n_epochs=n_epochs, patience=n_epochs)
    compute = section("compute", ComputeConfig, device="cpu")
    checkpoint = section("checkpoint", CheckpointConfig)
    device = use(compute.device, compute.n_threads)
    folders = (workspace / "checkpoints", workspace / "nan")
    engine = engine_of(compute, checkpoint, folders[0], "benchmark", black_boxes=folders[1])
    marks = [time.perf_counter()]
    with opened(is_tracked, workspace) as tracker:
        marks.append(time.perf_counter())
        tracker.log_params({f"vae.{name}": value for name, value in vae.model_dump().items()})
        cells = load_training_cells(workspace / "cells.h5ad", max_counts_gib=1.0)
        marks.append(time.perf_counter())
        with watchers(tracker) as watching:
            _, history = fit_vae(cells, vae, device, watching, engine=engine)
        marks.append(time.perf_counter())
    marks.append(time.perf_counter())
    names = ("opening", "loading", "training", "closing")
    took = {name: marks[n + 1] - marks[n] for n, name in enumerate(names)}
    return {**took, "n_epochs": len(history.rows), "n_events": len(history.events)}


def main() -> None:
    asked = json.loads(sys.argv[1])
    took = trained(Path(asked["workspace"]), asked["n_epochs"], asked["is_tracked"])
    print(json.dumps(took))


if __name__ == "__main__":
    main()
