"""How a training is computed, as opposed to what it computes: no choice here is part of a model."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from cfmvc.training.checkpoint import Checkpoints, NoCheckpoints
from cfmvc.training.config import Precision


def no_checkpoints(stage: str) -> NoCheckpoints:
    """Return what keeps nothing."""
    return NoCheckpoints()


@dataclass(frozen=True)
class Engine:
    """How a training is computed.

    Parameters
    ----------
    precision
        Of matrix products; likelihood, sums and optimiser are in float32 in any case. ``tf32`` is
        float32 with 10 bits of fraction within the products of a GPU, and float32 elsewhere.
    n_parts
        In how many parts the cells of a step are computed, one after the other.
    recompute
        Keep no hidden activations for the gradient, and compute them a second time instead.
    checkpoints
        From the name of a stage to where its checkpoints are kept.
    must_resume
        Whether checkpoints that cannot be gone on from are an error.
    black_boxes
        Folder in which the first non-finite step of a stage is kept; None: nowhere.
    gradient_picture
        Keep the gradient norms of every step, by module.
    whole_steps
        Whether a step is one piece of work for the device, see
        :class:`~cfmvc.training.whole_step.WholeStep`; None: on a GPU.
    """

    precision: Precision = "float32"
    n_parts: int = 1
    recompute: bool = False
    checkpoints: Callable[[str], Checkpoints | NoCheckpoints] = no_checkpoints
    must_resume: bool = False
    black_boxes: Path | None = None
    gradient_picture: bool = False
    whole_steps: bool | None = None


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which an objective is computed."""
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def matrix_products(device: torch.device, precision: Precision) -> Iterator[None]:
    """Let a GPU take products in TF32 inside the block, if that is asked for."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
