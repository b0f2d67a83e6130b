"""A step in parts is the step; memory that ends halves the parts, and is told once."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from cfmvc.errors import CfmvcError
from cfmvc.models import CFMVCModel
from cfmvc.stages import TrainingCells, fit_vae
from cfmvc.training.config import VaeConfig
from cfmvc.training.engine import Engine
from cfmvc.training.history import History
from cfmvc.training.loop import train
from cfmvc.training.objectives import VaeObjective
from cfmvc.training.sources import TableSource
from cfmvc.training.step import is_out_of_memory

CPU = torch.device("cpu")


def losses(history: History) -> list[float]:
    return [row[name] for row in history.rows for name in ("train_loss", "val_loss")]


class NoDraws(VaeObjective):
    """An objective without noise, so that parts and whole draw the same: nothing."""

    def __call__(self, cells: Any) -> Any:
        self.model.encoder.eval()
        return super().__call__(cells)


def course(cells: TrainingCells, config: VaeConfig, engine: Engine, kind: Any = NoDraws) -> Any:
    torch.manual_seed(0)
    model = CFMVCModel(cells.train.n_genes, 2, 2, 3, 4, 2, 16)
    sources = [TableSource(table, 16, 0, CPU) for table in (cells.train, cells.val)]
    return train("train_vae", kind(model, 1.0), *sources, config, CPU, (), engine)


@pytest.mark.parametrize("n_parts", [2, 3, 16])
def test_parts_add_up_to_the_step(
    n_parts: int, cells: TrainingCells, vae_config: VaeConfig
) -> None:
    whole = course(cells, vae_config, Engine())
    parts = course(cells, vae_config, Engine(n_parts=n_parts))
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


@pytest.mark.parametrize("n_parts", [1, 2, 16])
def test_running_means_go_a_step_at_a_time_in_however_many_parts(
    n_parts: int, cells: TrainingCells, vae_config: VaeConfig
) -> None:
    """A push between batches remembers as many cells, so that memory decides of no model."""
    sizes = []

    class Watched(NoDraws):
        def __call__(self, cells: Any) -> Any:
            loss = super().__call__(cells)
            sizes.append(float(self.offsets.sizes.sum()))
            return loss

    def watched(model: CFMVCModel, beta: float) -> Watched:
        return Watched(model, beta, lambda_batch=3.0)

    course(cells, vae_config, Engine(), watched)
    whole = sizes[-1]
    course(cells, vae_config, Engine(n_parts=n_parts), watched)
    assert sizes[-1] == pytest.approx(whole, rel=0.02)


def test_recomputed_activations_give_the_same_bits(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    config = vae_config.model_copy(update={"dropout": 0.3, "lambda_batch": 3.0})
    kept, _ = fit_vae(cells, config, CPU)
    recomputed, _ = fit_vae(cells, config, CPU, engine=Engine(recompute=True))
    for name, value in kept.model.state_dict().items():
        assert torch.equal(recomputed.model.state_dict()[name], value), name


def test_half_precision_learns_the_same_to_its_digits(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    _, single = fit_vae(cells, vae_config, CPU)
    bundle, half = fit_vae(cells, vae_config, CPU, engine=Engine(precision="bfloat16"))
    assert losses(half) == pytest.approx(losses(single), rel=2e-2)
    assert {value.dtype for value in bundle.model.parameters()} == {torch.float32}


class Greedy(VaeObjective):
    """Asks for more memory than there is where it sees more than four cells."""

    def __call__(self, cells: Any) -> Any:
        loss = super().__call__(cells)
        if len(cells) > 4:
            torch.empty(1 << 60)  # the allocator's own error
        return loss


def test_memory_that_ends_halves_the_parts_and_is_told_once(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    config = vae_config.model_copy(update={"validate_every": 100, "n_epochs": 2})
    torch.manual_seed(0)
    model = CFMVCModel(cells.train.n_genes, 2, 2, 3, 4, 2, 16)
    source = TableSource(cells.train, 16, 0, CPU)
    history = train("train_vae", Greedy(model, 1.0), source, None, config, CPU)
    told = [event for event in history.events if event.kind == "out_of_memory"]
    assert [event.action for event in told] == ["the 16 cells of a step are computed in 4 parts"]
    assert [row["step"] for row in history.rows] == [8, 16]


def test_memory_that_is_not_enough_for_two_cells_is_an_error(
    cells: TrainingCells, vae_config: VaeConfig
) -> None:
    class Insatiable(VaeObjective):
        def __call__(self, cells: Any) -> Any:
            return torch.empty(1 << 60)

    with pytest.raises(CfmvcError, match="out of memory with 2 cells at a time"):
        course(cells, vae_config, Engine(), Insatiable)


def test_an_exhausted_process_is_recognised() -> None:
    code = (
        "import resource, torch\n"
        "from cfmvc.training.step import is_out_of_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))\n"
        "held = []\n"
        "try:\n"
        "    while True: held.append(torch.empty(1 << 26))\n"
        "except Exception as error:\n"
        "    assert is_out_of_memory(error), error\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
