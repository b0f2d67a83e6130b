"""The first non-finite step is kept, and done again to the bit by another process."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

import cfmvc.stages.flow as flow_stage
from cfmvc.errors import CfmvcError
from cfmvc.models import CFMVCModel
from cfmvc.stages import TrainingCells, fit_flow, fit_vae
from cfmvc.training.black_box import STATE, replay_black_box
from cfmvc.training.callbacks import NoCallback, TrainingState
from cfmvc.training.config import FlowConfig, VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.events import TrainingEvent
from tests.forked import ForkedModule

CPU = torch.device("cpu")


class Events(NoCallback):
    """Keeps the vetoed updates."""

    def __init__(self) -> None:
        self.nan: list[TrainingEvent] = []

    def on_events(self, state: TrainingState, events: list[TrainingEvent]) -> None:
        self.nan += [event for event in events if event.kind == "nan"]


@pytest.fixture
def box(cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path) -> tuple[Path, TrainingEvent]:
    cells.train.counts.data[40] = np.nan
    config = vae_config.model_copy(update={"dropout": 0.2, "lambda_adv": 0.1})
    watch = Events()
    fit_vae(cells, config, CPU, [watch], engine=Engine(black_boxes=tmp_path))
    assert len(watch.nan) == config.n_epochs  # once an epoch, and the first one is kept
    assert [path.name for path in tmp_path.iterdir()] == [Path(str(watch.nan[0].black_box)).name]
    return Path(str(watch.nan[0].black_box)), watch.nan[0]


def test_a_training_goes_on_where_no_black_box_can_be_written(
    cells: TrainingCells, vae_config: VaeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells.train.counts.data[40] = np.nan
    (tmp_path / "a file").touch()
    plain, boxed = (
        fit_vae(cells, vae_config, CPU, engine=Engine(black_boxes=folder))[0].model.state_dict()
        for folder in (None, tmp_path / "a file" / "nan")
    )
    assert all(torch.equal(boxed[name], value) for name, value in plain.items())
    assert "no black box in" in capsys.readouterr().err


def replay_nan(*words: str | Path, expect: int = 0) -> str:
    words = ("replay-nan", *map(str, words))
    process = ForkedModule("tests.cli.a_command", words, Path.cwd(), os.environ)
    said, _ = process.communicate()
    assert process.returncode == expect, said
    return said


def test_another_process_reproduces_the_step(box: tuple[Path, TrainingEvent]) -> None:
    folder, event = box
    assert event.module == "EncoderVAE.of_counts"
    said = replay_nan(folder)
    assert "first non-finite: input" in said
    assert "first module with a non-finite output: EncoderVAE.of_counts" in said
    assert "cause: bad input: 1 counts are NaN or infinite" in said
    assert ", ".join(map(str, event.cells)) in said
    assert "reproduced bit for bit" in said


def test_other_numbers_are_not_called_the_same(box: tuple[Path, TrainingEvent]) -> None:
    folder, _ = box
    tensors = load_file(folder / STATE)
    tensors["part0.x"] = torch.nan_to_num(tensors["part0.x"])
    (folder / STATE).write_bytes(save(tensors))
    said = replay_nan(folder, expect=1)
    assert "NOT reproduced" in said
    assert "first module with a non-finite output: none" in said


def test_flow_steps_are_kept_with_their_draws(
    cells: TrainingCells,
    vae_config: VaeConfig,
    flow_config: FlowConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle, _ = fit_vae(cells, vae_config, CPU)
    built, watch = list[CFMVCModel](), Events()
    with_new_flow = flow_stage._with_new_flow

    def remembered(*arguments: Any) -> CFMVCModel:
        built.append(with_new_flow(*arguments))
        return built[-1]

    class Spoil(NoCallback):
        def on_epoch_end(self, state: TrainingState) -> None:
            built[0].field.basis.weight.data.fill_(float("inf"))

    monkeypatch.setattr(flow_stage, "_with_new_flow", remembered)
    config = flow_config.model_copy(update={"dropout": 0.2, "max_consecutive_vetoes": 99})
    fit_flow(bundle, cells, config, CPU, [Spoil(), watch], Engine(black_boxes=tmp_path))
    report, findings = replay_black_box(Path(str(watch.nan[0].black_box)))
    assert report["findings"] == findings.as_json()
    assert findings.module == "FlowField.basis"


def test_a_folder_that_is_no_black_box_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(CfmvcError, match="not a NaN black box"):
        replay_black_box(tmp_path)
