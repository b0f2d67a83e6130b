"""One optimiser step: gradient in as many parts as memory asks for, guard, update, average."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from cfmvc.errors import CfmvcError
from cfmvc.shards import current_shard, of_step
from cfmvc.training.adamw import FlatAdamW
from cfmvc.training.averages import AveragedWeights
from cfmvc.training.black_box import Part
from cfmvc.training.checkpoint_file import under
from cfmvc.training.config import LoopConfig
from cfmvc.training.engine import Engine, autocast
from cfmvc.training.flat import FlatParameters
from cfmvc.training.gradient_norms import GradientNorms, NoGradientNorms
from cfmvc.training.history import sums_of_step
from cfmvc.training.nan_guard import NanGuard, Verdict
from cfmvc.training.objectives import Loss, Objective, copied_buffers, set_buffers
from cfmvc.training.randomness import RandomState
from cfmvc.training.sources import IndexedCells, StepCells
from cfmvc.training.whole_step import Rates, WholeStep

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")


_BEFORE_RECORDING = 3  # steps in which libraries make what they need, which cannot be recorded


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
        self.rates, self.names = Rates(device), list[str]()
        may_record = device.type == "cuda" and not engine.recompute and not engine.gradient_picture
        self.is_whole = may_record if engine.whole_steps is None else engine.whole_steps
        self._whole: WholeStep[tuple[torch.Tensor, Verdict]] | None = None
        self._n_before, self._shape = 0, (0, 0)
        # Of the last step: its number, what the objective saw (not of a whole one), and its
        # buffers before.
        self.last_step = -1
        self.parts: list[Part] = []
        self.buffers: dict[str, torch.Tensor] = {}

    def __call__(self, cells: StepCells | IndexedCells, moment: Moment) -> torch.Tensor:
        """Do a step; returns what it adds to the sums of its epoch, the same in all processes.

        What is returned is overwritten by the next step.
        """
        self.rates.set(moment.rate, self.averaged.next_share)
        done = self._done_whole(cells) if isinstance(cells, IndexedCells) else None
        row, verdict = done or self._done_in_parts(cells, moment)
        self.last_step = moment.step
        self.guard.note_step(verdict, moment.epoch, moment.step, cells.rows)
        self.averaged.count()
        return row

    def in_parts(self, cells: StepCells | IndexedCells, moment: Moment) -> None:
        """Do a step that has been done before, for another look at it."""
        self.rates.set(moment.rate, self.averaged.next_share)
        self._done_in_parts(cells, moment)
        self.last_step = moment.step
        self.averaged.count()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that the steps change, by name."""
        moments, buffers = self.optimizer.moments, self.objective.buffers()
        return {
            "values": self.flat.values.detach(),
            "average": self.averaged.average,
            **{f"optimizer.{name}": value for name, value in moments.items()},
            **{f"objective.{name}": value for name, value in buffers.items()},
            "n_averaged": torch.tensor(self.averaged.n_updates),
        }

    def set(self, tensors: dict[str, torch.Tensor]) -> None:
        """Give what :meth:`tensors` named the values that it had."""
        self.flat.values.data.copy_(tensors["values"])
        self.averaged.average.copy_(tensors["average"])
        self.optimizer.set(under("optimizer.", tensors))
        set_buffers(self.objective, under("objective.", tensors))
        self.averaged.n_updates = int(tensors["n_averaged"])

    def _updated(
        self, loss: Loss, n_mine: float, n_cells: int, step: int | None
    ) -> tuple[torch.Tensor, Verdict]:
        """Move the weights along the gradient; nothing here waits for the device.

        The loss is the mean of ``n_mine`` of the step's ``n_cells``.
        """
        self.norms.note()
        verdict = self.guard.before_update(loss, step, n_mine / n_cells)
        clipping = ((verdict.norm + 1e-6) / self.max_norm).clamp(min=1.0)
        self.optimizer.update(self.rates.lr, clipping, verdict.vetoed)
        self.averaged.update(self.rates.share)
        self.names = ["loss", *loss.parts]
        return current_shard().sum_(sums_of_step(loss, n_mine, verdict)), verdict

    # -- whole --------------------------------------------------------------------------------

    def _done_whole(self, cells: IndexedCells) -> tuple[torch.Tensor, Verdict] | None:
        """Do a step as one piece of work; None, and nothing done, where it is not one."""
        if not self._is_whole(cells):
            return None
        if self._whole is None:
            self._whole = WholeStep(partial(self._work, cells.gather), self.device)
        try:
            row, verdict = self._whole(cells.indices)
        except torch.OutOfMemoryError:  # in parts, there is a way out
            self._whole, self.is_whole = None, False
            return None
        self.parts = []
        return row, verdict.copied()

    def _is_whole(self, cells: IndexedCells) -> bool:
        """Return whether a step is one: of a full number of cells, in one part, by one process."""
        if not self.is_whole or self.n_parts > 1 or current_shard().n_ranks > 1:
            return False
        self._n_before += 1
        if self._n_before <= _BEFORE_RECORDING:
            self._shape = max(self._shape, cells.indices.shape)
            return False
        return self._shape == cells.indices.shape

    def _work(
        self, gather: Callable[[torch.Tensor], Any], indices: torch.Tensor
    ) -> tuple[torch.Tensor, Verdict]:
        n_cells = indices.shape[1]
        with of_step(n_cells), autocast(self.device, self.engine.precision):
            loss = self._loss(gather(indices))
        self.flat.differentiate(loss.total, 1.0, is_first=True)
        return self._updated(_detached(loss), n_cells, n_cells, None)

    # -- in parts -----------------------------------------------------------------------------

    def _done_in_parts(
        self, cells: StepCells | IndexedCells, moment: Moment
    ) -> tuple[torch.Tensor, Verdict]:
        loss, n_mine = self._differentiated(cells)
        return self._updated(loss, n_mine, len(cells), moment.step)

    def _differentiated(self, cells: StepCells | IndexedCells) -> tuple[Loss, float]:
        """Return the loss of a step, and of how many cells; in smaller parts if memory ends.

        Its gradient is in ``flat``.
        """
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

    def _in_parts(self, cells: StepCells | IndexedCells) -> tuple[Loss, float]:
        shard, losses, sizes = current_shard(), list[Loss](), list[float]()
        self.parts = []
        for part in self._parts(cells):
            share, size = shard.share(len(part)), shard.size(len(part))
            mine = slice(part.start + share.start, part.start + share.stop)
            # The gradient, too: with `recompute` the loss is computed once more there.
            with of_step(len(part), len(part) / len(cells)):
                with autocast(self.device, self.engine.precision):
                    gathered = cells.take(mine)
                    now = RandomState.now(self.device)
                    self.parts.append(Part(gathered, now, size / len(cells)))
                    loss = self._loss(gathered)
                self.flat.differentiate(loss.total, size / len(cells), is_first=not losses)
            losses.append(_detached(loss))
            sizes.append(size)
        shard.sum_(self.flat.gradient)
        return losses[0] if len(losses) == 1 else _mean(losses, sizes), sum(sizes)

    def _loss(self, gathered: Any) -> Loss:
        if not self.engine.recompute:
            return self.objective(gathered)
        kept: list[Loss] = []
        before = copied_buffers(self.objective)

        def total() -> torch.Tensor:
            if kept:  # the second time, which must not be a second step of the running means
                set_buffers(self.objective, before)
            kept.append(self.objective(gathered))
            return kept[-1].total

        value = checkpoint(total, use_reentrant=False)
        return replace(_detached(kept[0]), total=value)

    def _parts(self, cells: StepCells | IndexedCells) -> list[range]:
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
