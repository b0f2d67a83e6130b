"""One optimiser step: gradient in as many parts as memory asks for, guard, update, average."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from cfmvc.errors import CfmvcError
from cfmvc.shards import current_shard, of_step
from cfmvc.training.adamw import FlatAdamW
from cfmvc.training.averages import AveragedWeights
from cfmvc.training.black_box import Part
from cfmvc.training.config import LoopConfig
from cfmvc.training.engine import Engine, autocast
from cfmvc.training.flat import FlatParameters
from cfmvc.training.gradient_norms import GradientNorms, NoGradientNorms
from cfmvc.training.history import sums_of_step
from cfmvc.training.nan_guard import NanGuard
from cfmvc.training.objectives import Loss, Objective, copied_buffers, set_buffers
from cfmvc.training.randomness import RandomState
from cfmvc.training.sources import StepCells

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")


@dataclass(frozen=True)
class Moment:
    """Where in the training a step is."""

    epoch: int
    step: int
    rate: float


class Stepper:
    """Does the steps of one training.

    Parameters
    ----------
    objective
        What is minimised.
    flat
        Everything that learns.
    guard
        Vetoes updates.
    config
        Optimiser and clipping.
    engine
        How it is computed.
    device
        Where.
    """

    def __init__(
        self,
        objective: Objective,
        flat: FlatParameters,
        guard: NanGuard,
        config: LoopConfig,
        engine: Engine,
        device: torch.device,
    ) -> None:
        self.objective, self.flat, self.guard = objective, flat, guard
        self.max_norm, self.engine, self.device = config.grad_clip_max_norm, engine, device
        self.n_parts = engine.n_parts
        self.optimizer = FlatAdamW(flat.values, config.weight_decay)
        self.averaged = AveragedWeights(flat.values, config.ema_decay)
        self.norms = (
            GradientNorms(guard.stage, flat, config.n_epochs)
            if engine.gradient_picture
            else NoGradientNorms()
        )
        self.names: list[str] = []
        # Of the last step: what the objective saw, and its buffers before.
        self.parts: list[Part] = []
        self.buffers: dict[str, torch.Tensor] = {}

    def __call__(self, cells: StepCells, moment: Moment) -> torch.Tensor:
        """Do a step; returns what it adds to the sums of its epoch, the same in all processes."""
        loss = self._differentiated(cells)
        self.norms.note()
        verdict = self.guard.before_update(loss, moment.epoch, moment.step, cells.rows)
        clipping = ((verdict.norm + 1e-6) / self.max_norm).clamp(min=1.0)
        self.optimizer.update(moment.rate, clipping, verdict.vetoed)
        self.averaged.update()
        self.names = ["loss", *loss.parts]
        shard = current_shard()
        return shard.sum_(sums_of_step(loss, shard.size(len(cells)), verdict))

    def _differentiated(self, cells: StepCells) -> Loss:
        """Return the loss of a step, its gradient in ``flat``; in smaller parts if memory ends."""
        before = RandomState.now(self.device)
        self.buffers = copied_buffers(self.objective)
        while True:
            try:
                return self._in_parts(cells)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                most = max(len(part) for part in self._parts(cells))
            # Outside of the handler: the traceback would keep the tensors of the failed attempt.
            self._halve(most)
            before.restore(self.device)
            set_buffers(self.objective, self.buffers)

    def _halve(self, most: int) -> None:
        """Compute half as many cells at a time from now on."""
        where = f"{self.guard.stage}: out of memory with {most} cells at a time"
        if current_shard().n_ranks > 1:
            raise CfmvcError(
                f"{where}; several processes must have the same number of parts: "
                f"set compute.n_parts to {2 * self.n_parts}"
            )
        if most <= 2:
            raise CfmvcError(f"{where}; make the model smaller, or free memory")
        self.n_parts *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _in_parts(self, cells: StepCells) -> Loss:
        shard, losses, sizes = current_shard(), list[Loss](), list[float]()
        self.parts = []
        for part in self._parts(cells):
            share, size = shard.share(len(part)), shard.size(len(part))
            mine = slice(part.start + share.start, part.start + share.stop)
            with of_step(len(part)), autocast(self.device, self.engine.precision):
                gathered = cells.take(mine)
                now = RandomState.now(self.device)
                self.parts.append(Part(gathered, now, size / len(cells)))
                loss = self._loss(gathered)
            self.flat.differentiate(loss.total, size / len(cells), is_first=not losses)
            losses.append(_detached(loss))
            sizes.append(size)
        shard.sum_(self.flat.gradient)
        return losses[0] if len(losses) == 1 else _mean(losses, sizes)

    def _loss(self, gathered: Any) -> Loss:
        if not self.engine.recompute:
            return self.objective(gathered)
        kept: list[Loss] = []

        def total() -> torch.Tensor:
            kept.append(self.objective(gathered))
            return kept[-1].total

        value = checkpoint(total, use_reentrant=False)
        return replace(_detached(kept[0]), total=value)

    def _parts(self, cells: StepCells) -> list[range]:
        """Return the parts of a step as ranges of its rows; none is empty."""
        n_cells, n_parts = len(cells), min(self.n_parts, len(cells))
        bounds = [n_cells * part // n_parts for part in range(n_parts + 1)]
        return [range(*pair) for pair in pairwise(bounds)]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation has failed, on the host or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)


def _detached(loss: Loss) -> Loss:
    return Loss(
        loss.total.detach(),
        {name: value.detach() for name, value in loss.parts.items()},
        {name: value.detach() for name, value in loss.probes.items()},
    )


def _mean(losses: list[Loss], sizes: list[float]) -> Loss:
    """Return the mean of the parts' losses over cells; a probe is finite if all parts' are."""
    shares = [size / sum(sizes) for size in sizes]

    def mean(values: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([v * s for v, s in zip(values, shares, strict=True)]).sum()

    return Loss(
        mean([loss.total for loss in losses]),
        {name: mean([loss.parts[name] for loss in losses]) for name in losses[0].parts},
        {name: mean([loss.probes[name] for loss in losses]) for name in losses[0].probes},
    )
