"""Faults injected into training and generation, found again in MLflow with their place."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from cfmvc.stages import TrainingCells, fit_flow, fit_vae, predict_cells
from cfmvc.tracking import stage_run
from cfmvc.tracking.callback import TrackingCallback
from cfmvc.tracking.course import log_velocity_events
from cfmvc.tracking.store import Store
from cfmvc.training.config import FlowConfig, VaeConfig
from cfmvc.training.loop import train
from cfmvc.training.objectives import FlowObjective, VaeObjective
from cfmvc.training.sources import TableSource
from tests.tracking.conftest import CONFIG, artifact_text, runs_of, steps_of
from tests.training import conftest as training
from tests.training.test_nan_guard import BAD_STEP, CPU, FLOW_FAULTS, VAE_FAULTS, flow_source

cells, vae_config, flow_config = training.cells, training.vae_config, training.flow_config


def test_training_faults_arrive_with_their_place(
    workspace: Path,
    store: Store,
    cells: TrainingCells,
    vae_config: VaeConfig,
    flow_config: FlowConfig,
) -> None:
    with stage_run("train", workspace, CONFIG) as tracker:
        for name, (injector, spoil, _) in VAE_FAULTS.items():
            bundle, _ = fit_vae(cells, vae_config.model_copy(update={"n_epochs": 1}), CPU)
            objective = injector(VaeObjective(bundle.model, 1.0), spoil)
            watchers = [TrackingCallback(tracker, f"vae_{name}_")]
            source = TableSource(cells.train, 16, 0, CPU)
            train("train_vae", objective, source, None, vae_config, CPU, watchers)
        for name, (injector, spoil, _) in FLOW_FAULTS.items():
            model, latents = flow_source(cells, vae_config, flow_config)
            objective = injector(FlowObjective(model), spoil)
            watchers = [TrackingCallback(tracker, f"flow_{name}_")]
            train("train_flow", objective, latents, None, flow_config, CPU, watchers)
    run = runs_of(store)["train"]
    faults = {f"vae_{name}": place for name, (_, _, place) in VAE_FAULTS.items()}
    faults |= {f"flow_{name}": place for name, (_, _, place) in FLOW_FAULTS.items()}
    for name, place in faults.items():
        assert steps_of(store, run, f"{name}_nan_events") == [(BAD_STEP, 1.0)]
        event = json.loads(artifact_text(store, run, f"events/{name}_nan.jsonl"))
        assert event["place"] == place
        assert event["cells"]


@pytest.mark.filterwarnings("error")
def test_a_velocity_that_is_not_finite_arrives_with_its_condition(
    workspace: Path,
    store: Store,
    cells: TrainingCells,
    vae_config: VaeConfig,
    flow_config: FlowConfig,
) -> None:
    bundle, _ = fit_vae(cells, vae_config, CPU)
    bundle, _ = fit_flow(bundle, cells, flow_config.model_copy(update={"source": "control"}), CPU)
    with torch.no_grad():
        bundle.model.field.basis.weight[0, 0] = float("nan")
    asked = pd.DataFrame(
        {"perturbation": ["A", "B"], "batch": "b1", "cell_type": "T", "n_cells": [5, 7]}
    )
    prediction = predict_cells(bundle, asked, seed=0, n_steps=3)
    with stage_run("generate", workspace, CONFIG) as tracker:
        log_velocity_events(tracker, prediction.events)
    run = runs_of(store)["generate"]
    assert [step for step, _ in steps_of(store, run, "velocity_events")] == [0, 0, 1, 1, 2, 2]
    lines = artifact_text(store, run, "events/velocity.jsonl").splitlines()
    events = [json.loads(line) for line in lines]
    hit = {(event["condition"], event["n_cells"]) for event in events}
    assert hit == {("A | b1 | T", 5), ("B | b1 | T", 7)}
    assert {event["place"] for event in events} == {"velocity"}
