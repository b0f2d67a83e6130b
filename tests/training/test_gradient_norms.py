"""Gradient norms by module: what is kept, that nothing changes for it, and that it survives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cfmvc.evaluation.gradient_figures import gradient_picture, gradient_table
from cfmvc.stages import TrainingCells, fit_flow, fit_joint, fit_vae
from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.flat import FlatParameters
from cfmvc.training.gradient_norms import GradientNorms, spans_of_modules
from cfmvc.training.history import History
from tests.training.conftest import LOOP
from tests.training.test_resume import Stopped, engine, trained

CPU = torch.device("cpu")
ON = Engine(gradient_picture=True)


def small() -> FlatParameters:
    torch.manual_seed(0)
    sizes = {"A.first.weight": 5, "A.first.bias": 3, "A.second.0.weight": 33, "B.scale": 1}
    return FlatParameters({k: torch.nn.Parameter(torch.randn(n)) for k, n in sizes.items()})


def test_a_module_is_all_its_parameters_and_no_others() -> None:
    flat = small()
    assert list(spans_of_modules(flat)) == ["A.first", "A.second", "B.scale"]
    loss = sum((p * (n + 1)).sum() for n, p in enumerate(flat.parameters))
    flat.differentiate(loss, 1.0, is_first=True)  # type: ignore[arg-type]
    norms = GradientNorms("s", flat, n_epochs=1)
    for _ in range(3000):  # more than there is room for at first
        norms.note()
    (epoch,) = norms.close_epoch(1)
    expected = {"A.first": (5 + 3 * 4) ** 0.5, "A.second": 3 * 33**0.5, "B.scale": 4.0}
    for module, norm in expected.items():
        assert epoch["quantiles"][module] == pytest.approx([norm] * 6)
    assert epoch["n_steps"] == 3000
    assert norms.rows is None


def test_norms_that_are_zero_or_not_finite_are_counted() -> None:
    flat = small()
    norms = GradientNorms("s", flat, n_epochs=100)
    for value in (0.0, 1.0, np.nan, np.inf):
        flat.gradient.fill_(value)
        norms.note()
    epochs = norms.close_epoch(1)
    assert epochs[0]["not_finite"] == {"A.first": 2, "A.second": 2, "B.scale": 2}
    assert epochs[0]["histograms"]["B.scale"] == [[[0, 1], [80, 1]]]
    assert gradient_picture(epochs) is not None
    flat.gradient.fill_(np.nan)
    norms.note()
    assert gradient_table(norms.close_epoch(2))["median"].isna().all()


def test_results_are_the_same_to_the_bit(cells: TrainingCells, vae_config: VaeConfig) -> None:
    config = vae_config.model_copy(update={"dropout": 0.2, "ema_decay": 0.9})
    off, without = fit_vae(cells, config, CPU)
    on, history = fit_vae(cells, config, CPU, engine=ON)
    for name, value in off.model.state_dict().items():
        assert torch.equal(on.model.state_dict()[name], value), name
    assert without.gradients == []
    assert [epoch["epoch"] for epoch in history.gradients] == [1, 2, 3]
    assert [row["val_loss"] for row in history.rows] == [row["val_loss"] for row in without.rows]


def test_every_stage_has_five_to_fifteen_modules_a_model(
    cells: TrainingCells, vae_config: VaeConfig, flow_config: FlowConfig
) -> None:
    joint = JointConfig(**LOOP, beta=1.0, tech_penalty=1.0, lambda_flow=1.0)
    bundle, vae = fit_vae(cells, vae_config, CPU, engine=ON)
    bundle, flow = fit_flow(bundle, cells, flow_config, CPU, engine=ON)
    _, after = fit_joint(bundle, cells, joint, flow_config, CPU, engine=ON)
    assert [len(h.gradients[0]["quantiles"]) for h in (vae, flow, after)] == [
        11,
        9 if flow_config.source == "control" else 10,
        20 if flow_config.source == "control" else 21,
    ]
    table = gradient_table(flow.followed_by(after).gradients)
    assert set(table["stage"]) == {"train_flow", "train_joint"}
    first = flow.rows[0]["grad_norm"]
    whole = table[(table["stage"] == "train_flow") & (table["epoch"] == 1)]
    assert np.sqrt((whole["q05"] ** 2).sum()) <= first <= np.sqrt((whole["max"] ** 2).sum())


@pytest.mark.parametrize("stop_at", [3, 8, 13])
def test_a_stopped_training_goes_on_to_the_same_picture(
    stop_at: int, cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path
) -> None:
    how = replace(engine(tmp_path), gradient_picture=True)
    _, whole = trained(cells, vae_config, replace(how, checkpoints=Engine().checkpoints))
    with pytest.raises(Stopped):
        trained(cells, vae_config, how, stop_at)
    _, resumed = trained(cells, vae_config, how)
    assert len(whole.gradients) == 3
    assert resumed.gradients == whole.gradients
    assert History.from_json(resumed.as_json()).gradients == whole.gradients


def test_the_picture_has_a_panel_a_module(cells: TrainingCells, vae_config: VaeConfig) -> None:
    _, history = fit_vae(cells, vae_config, CPU, engine=ON)
    figure: Any = gradient_picture(history.gradients)
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert [title for title in titles if title] == list(history.gradients[0]["quantiles"])
