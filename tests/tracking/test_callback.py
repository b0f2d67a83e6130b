"""From the state of a training to the tracker."""

from pathlib import Path

from cfmvc.tracking import stage_run
from cfmvc.tracking.callback import TrackingCallback
from cfmvc.tracking.store import Store
from cfmvc.training.callbacks import TrainingState
from cfmvc.training.events import TrainingEvent
from tests.tracking.conftest import CONFIG, artifact_text, runs_of, steps_of


def test_epochs_and_events_arrive_at_their_steps(workspace: Path, store: Store) -> None:
    event = TrainingEvent(
        "nan", "vae", 0, 4, "encoder", ["w"], {"loss": None}, None, [1, 2], "vetoed"
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
