"""What the training stages share: the engine, and how the course is written down."""

from pathlib import Path

import pandas as pd
import torch

from cfmvc.evaluation.training_figures import latent_picture
from cfmvc.files import atomic_path, write_json
from cfmvc.models import Bundle
from cfmvc.stages.checkpointing import CheckpointConfig, engine_of
from cfmvc.stages.compute import ComputeConfig, use
from cfmvc.stages.vae import TrainingCells
from cfmvc.tracking.course import log_course
from cfmvc.tracking.tracker import Tracker
from cfmvc.training.engine import Engine
from cfmvc.training.history import History
from pipelines._stage import Stage

# Figures that differ from run to run stay in MLflow; stage outputs hold what the inputs determine.
_OF_THE_MACHINE = ("cells_per_second", "step_seconds", "peak_")


def engine_for(run: Stage, compute: ComputeConfig) -> tuple[Engine, torch.device]:
    """Return engine and device; a stage that was killed goes on from its last checkpoint."""
    checkpoint = run.section("checkpoint", CheckpointConfig)
    engine = engine_of(
        compute,
        checkpoint,
        run.checkpoints,
        run.fingerprint,
        black_boxes=run.workspace / ".cfmvc" / "nan",
        before_first=None if run.resumption is None else run.resumption.keep,
    )
    return engine, use(compute.device, compute.n_threads)


def write_course(
    tracker: Tracker, name: str, history: History, bundle: Bundle, cells: TrainingCells
) -> None:
    """Write curves and final figures as stage outputs, and pictures to MLflow."""
    rows = [
        {key: value for key, value in row.items() if not key.startswith(_OF_THE_MACHINE)}
        for row in history.rows
    ]
    with atomic_path(Path(f"results/curves/{name}.csv")) as made:
        pd.DataFrame(rows).to_csv(made, index=False)
    write_json(Path(f"results/train_{name}.json"), history.summary())
    log_course(tracker, name, history)
    tracker.log_figure(latent_picture(bundle, cells), "latents.png")
