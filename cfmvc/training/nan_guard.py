"""The NaN guard: vetoes an update before it happens, and says later where it came from.

In a step nothing is read back from the device: finiteness becomes a flag that the fused optimiser
obeys (``found_inf``), and flags and norms wait in a list that is read every ``interval`` steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from cfmvc.errors import NonFiniteError, listed
from cfmvc.models.beside import beside
from cfmvc.shards import current_shard
from cfmvc.training.events import VETOED, TrainingEvent
from cfmvc.training.flat import FlatParameters
from cfmvc.training.objectives import Loss

LARGE_GRADIENT = 100.0


@dataclass(frozen=True)
class Verdict:
    """What the guard says of one step, still on the device.

    Parameters
    ----------
    vetoed
        1.0 where the update must not happen, else 0.0.
    norm
        Norm of the whole gradient before clipping.
    values
        Both, and every probe and part of the loss, ``(n,)``.
    largest
        Largest entry of each parameter's gradient, ``(n_parameters,)``; None where nobody is going
        to ask, or the norm says that none is large.
    """

    vetoed: torch.Tensor
    norm: torch.Tensor
    values: torch.Tensor
    largest: torch.Tensor | None

    def copied(self) -> "Verdict":
        """Return the same in memory of its own."""
        largest = None if self.largest is None else self.largest.clone()
        values = self.values.clone()
        return Verdict(values[0], values[1], values, largest)


@dataclass
class _Pending:
    epoch: int
    step: int
    cells: np.ndarray
    values: torch.Tensor
    largest: torch.Tensor | None
    is_last: bool


@dataclass
class NanGuard:
    """Watches the gradients of a training's parameters.

    Parameters
    ----------
    flat
        Everything that learns.
    stage
        Name of the stage, for the events.
    interval
        Steps between reads of the flags.
    max_consecutive
        Vetoed updates in a row before :class:`~cfmvc.errors.NonFiniteError`.
    """

    flat: FlatParameters
    stage: str
    interval: int
    max_consecutive: int
    first_nan_step: int | None = None
    n_consecutive: int = 0
    last_event: TrainingEvent | None = None
    is_alarmed: bool = False
    _validation_place: str = "loss"
    _black_box: str | None = None
    _pending: list[_Pending] = field(default_factory=list)
    _probes: list[str] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)

    def before_update(self, loss: Loss, step: int | None = None, share: float = 1.0) -> Verdict:
        """Look at loss and gradient of a step, and say whether its update may happen.

        Parameters
        ----------
        loss
            Of this step; its gradient, that of all processes, is in ``flat``.
        step
            Its number; None where the same work is done for any step.
        share
            Of the step's cells that the loss is the mean of: the rest is other processes'.
        """
        # Costs nothing on a GPU, where the flag is not looked at before the update.
        sizes = self._begun_sizes()
        norm = torch.linalg.vector_norm(self.flat.gradient)
        self._probes, self._parts = list(loss.probes), list(loss.parts)
        losses = [*loss.probes.values(), *loss.parts.values()]
        figures = torch.stack([norm.float(), *(value.detach().float() for value in losses)])
        if current_shard().n_ranks > 1:  # the norm is common to all, a loss each process's own
            current_shard().sum_(figures[1:].mul_(share))
        vetoed = _flag(figures[: 1 + len(loss.probes)].sum())  # parts are for the record
        largest = sizes() if sizes is not None else None
        if largest is None and (bool(vetoed) or self._may_be_large(norm, step)):
            largest = self.flat.norms(torch.inf)
        return Verdict(vetoed, norm, torch.cat([vetoed[None], figures]), largest)

    def _begun_sizes(self) -> Callable[[], torch.Tensor] | None:
        gradient = self.flat.gradient
        return beside(lambda: self.flat.norms(torch.inf), gradient) if gradient.is_cuda else None

    def _may_be_large(self, norm: torch.Tensor, step: int | None) -> bool:
        """Return whether an entry may be large enough to tell of; none is larger than the norm."""
        # A little less: the norm is rounded.
        return (step is None or self._is_last(step)) and float(norm) > 0.99 * LARGE_GRADIENT

    def note_step(self, verdict: Verdict, epoch: int, step: int, cells: np.ndarray) -> None:
        """Keep a verdict for the next :meth:`read`.

        Parameters
        ----------
        verdict
            Of the step.
        epoch, step
            Where in the training.
        cells
            Rows of the training cells in this step.
        """
        self.is_alarmed = not verdict.vetoed.is_cuda and bool(verdict.vetoed)
        last = self._is_last(step)
        pending = _Pending(epoch, step, cells, verdict.values, verdict.largest, last)
        self._pending.append(pending)

    def _is_last(self, step: int) -> bool:
        """Return whether the flags are read after this step: sizes are looked at then alone."""
        return (step + 1) % self.interval == 0

    def is_due(self, n_steps: int) -> bool:
        """Return whether the flags are to be read after so many steps.

        On a CPU a vetoed step is known at once, and looked at before the weights change again.
        """
        return self.is_alarmed or n_steps % self.interval == 0

    def read(self) -> list[TrainingEvent]:
        """Read the waiting flags from the device, once, and return what happened."""
        if not self._pending:
            return []
        table = torch.stack([pending.values for pending in self._pending]).cpu().numpy()
        events = []
        for pending, row in zip(self._pending, table, strict=True):
            self.n_consecutive = self.n_consecutive + 1 if row[0] else 0
            if row[0]:
                events.append(self._veto(pending, row))
            elif pending.is_last:
                events += self._large(pending, row)
        self._pending.clear()
        self.is_alarmed = False
        return events

    def note(self, loss: Loss) -> None:
        """Look at a loss of the validation, which has no update to veto."""
        for name, value in loss.probes.items():
            if not torch.isfinite(value):
                self._validation_place = name
                return

    def bad_validation(self, epoch: int, step: int) -> TrainingEvent:
        """Return the event of a validation whose loss was not finite."""
        place = f"validation: {self._validation_place}"
        return TrainingEvent("nan", self.stage, epoch, step, place, "validation not counted")

    def know(self, events: list[TrainingEvent]) -> None:
        """Take note of all that has happened, also before a training was gone on with."""
        vetoes = [event for event in events if event.is_veto]
        self.last_event = vetoes[-1] if vetoes else None
        self._black_box = next((event.black_box for event in vetoes if event.black_box), None)

    @property
    def where_to_look(self) -> str:
        """What a message says of where the cells are that a vetoed step was about."""
        if self._black_box is not None:
            return f"`cfmvc replay-nan {self._black_box}` shows the first of these steps"
        rows = [] if self.last_event is None else self.last_event.cells
        return f"look at the training cells of that step, rows {listed(rows)}"

    def raise_if_hopeless(self, most: int | None = None) -> None:
        """Give up on a training whose updates are all vetoed.

        Parameters
        ----------
        most
            Give up after so many, if that is less than ``max_consecutive``.

        Raises
        ------
        NonFiniteError
            After ``max_consecutive`` vetoed updates in a row.
        """
        most = self.max_consecutive if most is None else min(most, self.max_consecutive)
        if self.n_consecutive >= most and self.last_event is not None:
            raise NonFiniteError(
                f"{self.stage}: {self.n_consecutive} updates in a row were not finite and were "
                f"vetoed, the last {self._described(self.last_event)}"
            )

    def abort(self) -> None:
        """Give up at the first vetoed update.

        Raises
        ------
        NonFiniteError
            With the place of the last one.
        """
        assert self.last_event is not None
        raise NonFiniteError(
            f"{self.stage}: an update was not finite, "
            f"{self._described(self.last_event)} (nan_policy: abort)"
        )

    def _described(self, event: TrainingEvent) -> str:
        return (
            f"at step {event.step} (first non-finite: {event.place}); the parameters are those "
            f"before. Lower the learning rate, or see what it is: {self.where_to_look}"
        )

    def _veto(self, pending: _Pending, row: np.ndarray) -> TrainingEvent:
        if self.first_nan_step is None:
            self.first_nan_step = pending.step
        probes = row[2 : 2 + len(self._probes)]
        bad = [name for name, v in zip(self._probes, probes, strict=True) if not np.isfinite(v)]
        place = bad[0] if bad else "gradient"
        assert pending.largest is not None
        sizes = pending.largest.cpu().tolist()
        names = [n for n, v in zip(self.flat.named, sizes, strict=True) if not np.isfinite(v)]
        return self._event("nan", pending, row, place, names, VETOED)

    def _large(self, pending: _Pending, row: np.ndarray) -> list[TrainingEvent]:
        if pending.largest is None:
            return []
        sizes = pending.largest.cpu().numpy()
        large = [n for n, v in zip(self.flat.named, sizes, strict=True) if v > LARGE_GRADIENT]
        if not large:
            return []
        return [self._event("large_gradient", pending, row, "gradient", large, "clipped")]

    def _event(
        self,
        kind: str,
        pending: _Pending,
        row: np.ndarray,
        place: str,
        parameters: list[str],
        action: str,
    ) -> TrainingEvent:
        parts = row[2 + len(self._probes) :]
        return TrainingEvent(
            kind,
            self.stage,
            pending.epoch,
            pending.step,
            place,
            action,
            parameters,
            {name: _plain(value) for name, value in zip(self._parts, parts, strict=True)},
            _plain(row[1]),
            [int(cell) for cell in pending.cells],
        )


def _flag(figure: torch.Tensor) -> torch.Tensor:
    """Return 1.0 where a scalar is not finite, else 0.0; on a GPU without waiting for it."""
    if figure.is_cuda:
        return (figure - figure != 0).float()  # NaN and infinity alone; three kernels
    return figure.new_tensor(0.0 if math.isfinite(figure.item()) else 1.0)


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
