"""A tracked training for tests: ``python -m tests.tracking.a_training FOLDER FINGERPRINT``.

It saves after every step, and one of its cells is NaN: an update of every epoch is vetoed. After a
step it waits as long as the file ``pause`` is in the folder.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from cfmvc.config import parse_section, read_yaml
from cfmvc.errors import CfmvcError
from cfmvc.stages import fit_vae
from cfmvc.stages.checkpointing import CheckpointConfig, engine_of
from cfmvc.stages.compute import ComputeConfig
from cfmvc.tracking import TrackingConfig, stage_run
from cfmvc.tracking.callback import TrackingCallback
from cfmvc.tracking.resumption import Resumption
from cfmvc.training.alone import alone
from cfmvc.training.callbacks import NoCallback, TrainingState
from cfmvc.training.config import VaeConfig
from tests.conftest import PROJECT
from tests.training.conftest import LOOP, training_cells

N_EPOCHS = 12
SIZES = {"dim_int": 4, "dim_tech": 2, "hidden_dim": 16, "dropout": 0.1}
WEIGHTS = {"beta": 1.0, "tech_penalty": 1.0, "kl_warmup": 0.3, "lambda_batch": 0.1}


class Pause(NoCallback):
    """Lets a test act while the training stands still."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_epoch_end(self, state: TrainingState) -> None:
        while (self._folder / f"pause{state.epoch}").exists():
            time.sleep(0.02)


def main() -> None:
    folder, fingerprint = Path(sys.argv[1]), sys.argv[2]
    params = read_yaml(PROJECT / "params.yaml")
    compute = parse_section(ComputeConfig, params["compute"] | {"n_threads": 1}, "compute")
    tracking = parse_section(
        TrackingConfig, read_yaml(folder / "params.yaml")["tracking"], "tracking"
    )
    config = VaeConfig(
        **LOOP | SIZES | WEIGHTS | {"lambda_adv": 0.0, "n_epochs": N_EPOCHS, "patience": N_EPOCHS}
    )
    cells = training_cells(160, 12)
    cells.train.counts.data[3] = np.nan
    kept = folder / "checkpoints" / "train_vae"
    with alone(kept.with_suffix(".lock"), str(kept)):
        resumption = Resumption(kept, fingerprint)
        with stage_run("vae", folder, tracking, resumption=resumption) as tracker:
            tracker.log_params({"beta": 1.0})
            engine = engine_of(
                compute,
                CheckpointConfig(every_seconds=0, n_kept=2),
                kept.parent,
                fingerprint,
                black_boxes=folder / "nan",
                before_first=resumption.keep,
            )
            watching = [TrackingCallback(tracker), Pause(folder)]
            fit_vae(cells, config, torch.device("cpu"), watching, engine=engine)
            engine.checkpoints("train_vae").clear()


if __name__ == "__main__":
    try:
        main()
    except CfmvcError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
