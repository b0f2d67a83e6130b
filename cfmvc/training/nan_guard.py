"""The NaN guard: vetoes an update before it happens, and says later where it came from.

In a step nothing is read back from the device: finiteness becomes a flag that the fused optimiser
obeys (``found_inf``), and flags and norms wait in a list that is read every ``interval`` steps.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from cfmvc.errors import NonFiniteError
from cfmvc.shards import current_shard
from cfmvc.training.events import TrainingEvent
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
    """

    vetoed: torch.Tensor
    norm: torch.Tensor


@dataclass
class _Pending:
    epoch: int
    step: int
    cells: np.ndarray
    values: torch.Tensor
    largest: torch.Tensor | None
    norms: torch.Tensor | None


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
    _pending: list[_Pending] = field(default_factory=list)
    _probes: list[str] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)

    def before_update(self, loss: Loss, epoch: int, step: int, cells: np.ndarray) -> Verdict:
        """Look at loss and gradient of a step, and say whether its update may happen.

        Parameters
        ----------
        loss
            Of this step; its gradient is in ``flat``.
        epoch, step
            Where in the training.
        cells
            Rows of the training cells in this step.
        """
        norm = torch.linalg.vector_norm(self.flat.gradient)
        self._probes, self._parts = list(loss.probes), list(loss.parts)
        losses = [*loss.probes.values(), *loss.parts.values()]
        figures = torch.stack([norm.float(), *(value.detach().float() for value in losses)])
        vetoed = _flag(figures[: 1 + len(loss.probes)].sum())  # parts are for the record
        if current_shard().n_ranks > 1:  # the norm is common to all, a loss each process's own
            vetoed = current_shard().sum_(vetoed).clamp(max=1.0)
        # Sizes are looked at when the flags are read, not at every step.
        is_last = (step + 1) % self.interval == 0
        largest = self.flat.norms(torch.inf) if is_last else None
        # On a CPU a look costs nothing; on a GPU the norms do, compared to waiting for the device.
        self.is_alarmed = not vetoed.is_cuda and bool(vetoed)
        named = self.flat.norms() if vetoed.is_cuda or self.is_alarmed else None
        values = torch.cat([vetoed[None], figures])
        self._pending.append(_Pending(epoch, step, cells, values, largest, named))
        return Verdict(vetoed, norm)

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
            elif pending.largest is not None:
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
                f"vetoed, the last {_described(self.last_event)}"
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
            f"{_described(self.last_event)} (nan_policy: abort)"
        )

    def _veto(self, pending: _Pending, row: np.ndarray) -> TrainingEvent:
        if self.first_nan_step is None:
            self.first_nan_step = pending.step
        probes = row[2 : 2 + len(self._probes)]
        bad = [name for name, v in zip(self._probes, probes, strict=True) if not np.isfinite(v)]
        place = bad[0] if bad else "gradient"
        norms = [] if pending.norms is None else pending.norms.cpu().tolist()
        names = [n for n, v in zip(self.flat.named, norms, strict=False) if not np.isfinite(v)]
        self.last_event = self._event("nan", pending, row, place, names, "update vetoed")
        return self.last_event

    def _large(self, pending: _Pending, row: np.ndarray) -> list[TrainingEvent]:
        assert pending.largest is not None
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
        return (~torch.isfinite(figure)).float()
    return figure.new_tensor(0.0 if math.isfinite(figure.item()) else 1.0)


def _described(event: TrainingEvent) -> str:
    return (
        f"at step {event.step} (first non-finite: {event.place}); the parameters are those before. "
        "Lower the learning rate, or look at the cells named in events/nan.jsonl"
    )


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
