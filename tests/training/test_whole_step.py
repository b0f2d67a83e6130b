"""A step as one piece of work gives what it gives in parts, and its faults are found as well."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cfmvc.models.cfmvc as cfmvc_model
import cfmvc.models.nb_loss as nb_loss
import cfmvc.training.objectives as objectives
import cfmvc.training.sources as sources
from cfmvc.data.resident import ResidentTable
from cfmvc.errors import NonFiniteError
from cfmvc.models import Bundle
from cfmvc.stages import TrainingCells, fit_flow, fit_joint, fit_vae
from cfmvc.stages.checkpointing import Checkpoints
from cfmvc.training.black_box import replay_black_box
from cfmvc.training.callbacks import NoCallback, TrainingState
from cfmvc.training.config import FlowConfig, JointConfig, VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.nan_guard import NanGuard
from cfmvc.training.whole_step import WholeStep
from tests.training.conftest import LOOP
from tests.training.test_black_box import Events

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    ],
)
JOINT = JointConfig(**{**LOOP, "beta": 1.0, "lambda_flow": 1.0, "tech_penalty": 1.0})


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where, with the cells of a training held there and flags read when they are due."""
    place = torch.device(request.param)
    if place.type == "cpu":
        monkeypatch.setattr(sources, "held_for", ResidentTable.of)
        monkeypatch.setattr(NanGuard, "is_due", lambda self, n: n % self.interval == 0)
    return place


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Let a GPU sum in a fixed order."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def n_whole(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many cells the steps had that were one piece."""
    seen, honest = list[int](), WholeStep.__call__

    def counted(self: WholeStep, indices: np.ndarray) -> object:
        seen.append(indices.shape[1])
        return honest(self, indices)

    monkeypatch.setattr(WholeStep, "__call__", counted)
    return seen


def all_stages(
    cells: TrainingCells,
    vae: VaeConfig,
    flow: FlowConfig,
    device: torch.device,
    engine: Engine,
) -> Bundle:
    bundle, _ = fit_vae(cells, vae, device, engine=engine)
    bundle, _ = fit_flow(bundle, cells, flow, device, engine=engine)
    return fit_joint(bundle, cells, JOINT, flow, device, engine=engine)[0]


def weights_of(bundle: Bundle) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in bundle.model.state_dict().items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_course_is_that_of_steps_in_parts(
    cells: TrainingCells,
    vae_config: VaeConfig,
    flow_config: FlowConfig,
    device: torch.device,
    n_whole: list[int],
    precision: str,
) -> None:
    changed = {"dropout": 0.2, "ema_decay": 0.9}
    vae = vae_config.model_copy(
        update={**changed, "lambda_adv": 0.1, "lambda_batch": 1.0, "kl_warmup": 0.5}
    )
    flow = flow_config.model_copy(update={**changed, "lambda_dist": 0.3, "label_dropout": 0.5})
    engine = Engine(precision="bfloat16" if precision == "bfloat16" else "float32")
    whole = all_stages(cells, vae, flow, device, replace(engine, whole_steps=True))
    assert set(n_whole) == {16}, "the last of an epoch has fewer cells, and is not one"
    n_done = len(n_whole)
    parted = all_stages(cells, vae, flow, device, replace(engine, whole_steps=False))
    assert len(n_whole) == n_done
    for name, value in weights_of(parted).items():
        near = {"rtol": 0.0, "atol": 0.0} if device.type == "cpu" else {"rtol": 2e-3, "atol": 2e-4}
        torch.testing.assert_close(weights_of(whole)[name], value, **near, msg=name)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_bad_step_is_found_among_those_since_the_last_look(
    cells: TrainingCells,
    vae_config: VaeConfig,
    device: torch.device,
    n_whole: list[int],
    tmp_path: Path,
    is_kept: bool,
) -> None:
    cells.train.counts.data[40] = np.nan
    config = vae_config.model_copy(update={"dropout": 0.2, "n_epochs": 6, "lambda_batch": 1.0})
    watch, plain = Events(), Events()
    engine = Engine(black_boxes=tmp_path if is_kept else None, whole_steps=True)
    with_box, _ = fit_vae(cells, config, device, [watch], engine=engine)
    without, _ = fit_vae(cells, config, device, [plain], engine=Engine(whole_steps=True))
    assert n_whole
    assert len(watch.nan) == config.n_epochs
    assert [event.step for event in watch.nan] == [event.step for event in plain.nan]
    assert all(event.place == "input" for event in watch.nan)
    # to look back changes nothing
    for name, value in weights_of(without).items():
        torch.testing.assert_close(weights_of(with_box)[name], value, rtol=0, atol=0, msg=name)
    boxes = [event.black_box for event in watch.nan]
    assert [box is not None for box in boxes] == [is_kept] + [False] * (config.n_epochs - 1)
    if is_kept:
        _, findings = replay_black_box(Path(str(boxes[0])))
        assert findings.module == watch.nan[0].module == "EncoderVAE.of_counts"


class KillAt(NoCallback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, state: TrainingState) -> None:
        if state.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("deterministic")
def test_a_resumed_training_ends_with_the_same_bits(
    cells: TrainingCells,
    vae_config: VaeConfig,
    device: torch.device,
    n_whole: list[int],
    tmp_path: Path,
) -> None:
    config = vae_config.model_copy(update={"dropout": 0.2, "n_epochs": 6, "ema_decay": 0.9})
    engine = Engine(
        checkpoints=lambda stage: Checkpoints(tmp_path / stage, "same", 0.0, 2),
        whole_steps=True,
    )
    through, _ = fit_vae(cells, config, device, engine=Engine(whole_steps=True))
    with pytest.raises(KeyboardInterrupt):
        fit_vae(cells, config, device, [KillAt(4)], engine=engine)
    resumed, _ = fit_vae(cells, config, device, engine=engine)
    assert n_whole
    for name, value in weights_of(through).items():
        torch.testing.assert_close(weights_of(resumed)[name], value, rtol=0, atol=0, msg=name)


def test_a_hopeless_training_stops_with_whole_steps_too(
    cells: TrainingCells, vae_config: VaeConfig, device: torch.device
) -> None:
    cells.train.counts.data[:] = np.nan
    with pytest.raises(NonFiniteError, match="updates in a row were not finite"):
        fit_vae(cells, vae_config, device, engine=Engine(whole_steps=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.usefixtures("deterministic")
def test_work_beside_other_work_changes_nothing(
    cells: TrainingCells,
    vae_config: VaeConfig,
    flow_config: FlowConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vae = vae_config.model_copy(update={"lambda_batch": 1.0, "n_epochs": 6})
    for is_whole in (True, False):
        device, engine = torch.device("cuda"), Engine(whole_steps=is_whole)
        beside = all_stages(cells, vae, flow_config, device, engine)
        with monkeypatch.context() as patched:
            for module in (cfmvc_model, nb_loss, objectives):
                patched.setattr(module, "beside", lambda work, _like: work)
            one_by_one = all_stages(cells, vae, flow_config, device, engine)
        for name, value in weights_of(one_by_one).items():
            torch.testing.assert_close(weights_of(beside)[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_what_cannot_be_recorded_is_an_error_that_says_what_to_do() -> None:
    """In a process of its own: after such an error torch's allocator is not to be relied on."""
    code = """
import numpy as np, torch
from cfmvc.training.whole_step import WholeStep, CannotRecordError
work = lambda indices: torch.ones(int(indices.sum()), device="cuda")  # reads a number back
try:
    WholeStep(work, torch.device("cuda"))(np.ones((1, 4), np.int64))
except CannotRecordError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert "set compute.cuda_graphs to false" in done.stdout
