"""From the state of a training to the tracker."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cfmvc.cli.replaying import replay
from cfmvc.errors import TrackingError
from cfmvc.stages import fit_vae
from cfmvc.tracking import stage_run
from cfmvc.tracking.callback import TrackingCallback
from cfmvc.tracking.course import log_course
from cfmvc.tracking.store import Store
from cfmvc.training.callbacks import TrainingState
from cfmvc.training.config import VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.events import TrainingEvent
from tests.tracking.conftest import CONFIG, artifact_text, runs_of, steps_of
from tests.training.conftest import LOOP, training_cells


def test_epochs_and_events_arrive_at_their_steps(workspace: Path, store: Store) -> None:
    event = TrainingEvent(
        "nan", "vae", 0, 4, "encoder", "vetoed", ["w"], {"loss": None}, None, [1, 2]
    )
    with stage_run("vae", workspace, CONFIG) as tracker:
        callback = TrackingCallback(tracker, "vae_")
        state = TrainingState("vae", 2)
        callback.on_events(state, [event])
        for epoch in (1, 2):
            state.epoch, state.step = epoch, 10 * epoch
            state.metrics = {"train_loss": 1 / epoch}
            callback.on_epoch_end(state)
    run = runs_of(store)["vae"]
    assert steps_of(store, run, "vae_train_loss") == [(10, 1.0), (20, 0.5)]
    assert steps_of(store, run, "vae_epoch") == [(10, 1.0), (20, 2.0)]
    assert steps_of(store, run, "vae_nan_events") == [(4, 1.0)]
    assert '"place": "encoder"' in artifact_text(store, run, "events/vae_nan.jsonl")


def test_gradients_are_a_picture_and_a_table_where_they_are_asked_for(
    workspace: Path, store: Store
) -> None:
    sizes = {"dim_int": 4, "dim_tech": 2, "hidden_dim": 16, "dropout": 0.1}
    weights = {"beta": 1.0, "tech_penalty": 1.0, "kl_warmup": 0.3}
    config = VaeConfig(**LOOP, **sizes, **weights, lambda_batch=0.1, lambda_adv=0.0)
    for name, engine in (("off", Engine()), ("on", Engine(gradient_picture=True))):
        with stage_run(name, workspace, CONFIG) as tracker:
            _, history = fit_vae(training_cells(80, 12), config, torch.device("cpu"), engine=engine)
            log_course(tracker, "vae", history, "vae_")
    runs = runs_of(store)
    listed = {
        name: {item.path for item in store.client.list_artifacts(runs[name].info.run_id)}
        for name in ("off", "on")
    }
    assert listed["on"] - listed["off"] == {"vae_gradients.png", "vae_gradients.csv"}
    table = artifact_text(store, runs["on"], "vae_gradients.csv").splitlines()
    assert table[0].startswith("stage,epoch,module,n_steps,n_not_finite,q05,q25,median,q75,q95,max")
    assert len(table) == 1 + 3 * 11


def test_the_first_non_finite_step_is_replayed_from_its_run(workspace: Path, store: Store) -> None:
    cells = training_cells(80, 12)
    cells.train.counts.data[3] = np.nan
    sizes = {"dim_int": 4, "dim_tech": 2, "hidden_dim": 16, "dropout": 0.1}
    weights = {"beta": 1.0, "tech_penalty": 1.0, "kl_warmup": 0.3}
    config = VaeConfig(**LOOP, **sizes, **weights, lambda_batch=0.1, lambda_adv=0.0)
    engine = Engine(black_boxes=workspace / "boxes")
    with stage_run("vae", workspace, CONFIG) as tracker:
        fit_vae(cells, config, torch.device("cpu"), [TrackingCallback(tracker)], engine=engine)
    with stage_run("healthy", workspace, CONFIG):
        pass
    runs = runs_of(store)
    ((step, expected),) = steps_of(store, runs["vae"], "estimated_peak_memory_gib")
    assert step == 0
    assert expected == pytest.approx(steps_of(store, runs["vae"], "peak_rss_gib")[-1][1], rel=0.25)
    result = replay(runs["vae"].info.run_id, workspace)
    assert result["is_reproduced"]
    assert result["module"] == "EncoderVAE.of_counts"
    with pytest.raises(TrackingError, match="no NaN black box"):
        replay(runs["healthy"].info.run_id, workspace)
    with pytest.raises(TrackingError, match="neither a folder nor a run"):
        replay("0123abcd", workspace)
    (workspace / "empty").mkdir()
    with pytest.raises(TrackingError, match="no store"):
        replay(runs["vae"].info.run_id, workspace / "empty")
    assert not list((workspace / "empty").iterdir())
