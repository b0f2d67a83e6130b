"""What the training stages share: how the course is written down."""

from pathlib import Path

import pandas as pd

from cfmvc.evaluation.training_figures import latent_picture
from cfmvc.files import atomic_path, write_json
from cfmvc.models import Bundle
from cfmvc.stages.vae import TrainingCells
from cfmvc.tracking import SpoolTracker
from cfmvc.tracking.course import log_course
from cfmvc.training.history import History

# Figures that differ from run to run stay in MLflow; stage outputs hold what the inputs determine.
_OF_THE_MACHINE = ("cells_per_second", "step_seconds", "peak_")


def write_course(
    tracker: SpoolTracker, name: str, history: History, bundle: Bundle, cells: TrainingCells
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
